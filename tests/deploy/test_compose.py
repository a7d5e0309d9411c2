"""The compose file: what the specification allows, and each part names what another has."""

import re
import subprocess
import sys
from typing import Any

import yaml

from conf import ROOT
from conf.setting_sources import variables
from conf.setting_types import milliseconds
from conf.settings import Settings, load
from jobs import arguments, catalog
from local.cli import COMMANDS

PATH = ROOT / "deploy" / "compose.yaml"
FILE: dict[str, Any] = yaml.safe_load(PATH.read_text())
SERVICES: dict[str, Any] = FILE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"] == "tidemark"}


def test_it_is_what_the_specification_allows() -> None:
    words = ["-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(PATH)]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_what_a_service_names_is_there() -> None:
    for service in SERVICES.values():
        assert set(service.get("depends_on", ())) <= SERVICES.keys()
        assert set(service.get("secrets", ())) <= FILE["secrets"].keys()
        assert {each["source"] for each in service.get("configs", ())} <= FILE["configs"].keys()
        for source in (volume.partition(":")[0] for volume in service.get("volumes", ())):
            assert (PATH.parent / source).exists() if source.startswith(".") else source in FILE["volumes"]
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    waited_for = {
        name
        for each in SERVICES.values()
        for name, how in dict_of(each.get("depends_on", {}))
        if how == "service_healthy"
    }
    assert all("healthcheck" in SERVICES[name] for name in waited_for)
    assert FILE["x-tidemark"]["build"] == {"context": "..", "dockerfile": "deploy/image/Dockerfile"}


def dict_of(needed: Any) -> list[tuple[str, str]]:
    return [(name, how["condition"]) for name, how in needed.items()] if isinstance(needed, dict) else []


def test_our_services_are_sealed_and_run_commands_that_there_are() -> None:
    assert OURS.keys() == {"flights", "driver", "page"}
    for service in OURS.values():
        assert service["read_only"] and service["cap_drop"] == ["ALL"]
    for command in re.findall(r"local/tidemark (\w+)", OURS["flights"]["command"][-1]):
        assert command in COMMANDS
    assert OURS["page"]["command"][1] in COMMANDS
    script, *words = OURS["driver"]["command"]
    assert script == "./spark-submit.sh"
    catalog.require(arguments.parse_job(words).job)
    assert float(OURS["driver"]["stop_grace_period"].removesuffix("s")) * 1000 > milliseconds(load().run.stop_within)


def test_settings_are_known_and_addresses_are_services() -> None:
    for service in OURS.values():
        given = {name.removesuffix("_FILE"): value for name, value in service["environment"].items()}
        assert len(dict(variables(Settings, given))) == len(given)
        broker = service["environment"]["TIDEMARK_KAFKA__BOOTSTRAP_SERVERS"]
        assert f"PLAINTEXT://{broker}" == SERVICES["broker"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
        assert re.match(r"http://registry:8080/", service["environment"]["TIDEMARK_REGISTRY__URL"])
    scrapes = yaml.safe_load(FILE["configs"]["scrapes"]["content"])
    [target] = scrapes["scrape_configs"][0]["static_configs"][0]["targets"]
    assert target == f"driver:{OURS['driver']['environment']['TIDEMARK_METRICS__PORT']}"
    own = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yaml").read_text())
    assert scrapes["rule_files"] == own["rule_files"]
    assert yaml.safe_load(FILE["configs"]["datasource"]["content"])["datasources"][0]["url"] == "http://prometheus:9090"
    page = OURS["page"]
    assert page["environment"]["TIDEMARK_PAGE__TOKEN_FILE"] == f"/run/secrets/{page['secrets'][0]}"
