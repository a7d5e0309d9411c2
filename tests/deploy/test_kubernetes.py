"""The manifests: both overlays as kustomize makes them, against the API's own schemas and the operator's, and against
one another and the code: what one names, another has."""

import functools
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from kubeflow_spark_api import models
from pydantic import SecretStr

from conf import ROOT
from conf.setting_sources import variables
from conf.setting_types import milliseconds
from conf.settings import Settings, load
from jobs import arguments, catalog
from jobs.operations.replay.plan import duration
from local import submit

FOLDER = ROOT / "deploy" / "kubernetes"
OVERLAYS = ("plain", "operator")
API = "1.31"
DOCKERFILE = (ROOT / "deploy" / "image" / "Dockerfile").read_text()
PAGE = (ROOT / "docs" / "deploy.md").read_text()
SECRETS = "/run/secrets/tidemark"
# Kinds that the operator brings, with the model of each that its project publishes.
OPERATOR = {
    "SparkApplication": models.SparkV1beta2SparkApplication,
    "ScheduledSparkApplication": models.SparkV1beta2ScheduledSparkApplication,
}
Manifest = dict[str, Any]


@functools.cache
def manifests(overlay: str) -> list[Manifest]:
    """What kustomize makes of an overlay; with its base, and names that end in a digest of what they hold."""
    if not shutil.which("kubectl"):
        pytest.skip("kubectl, which brings kustomize, is not here")
    command = ["kubectl", "kustomize", str(FOLDER / "overlays" / overlay)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def of(overlay: str, kind: str) -> list[Manifest]:
    return [one for one in manifests(overlay) if one["kind"] == kind]


def only(overlay: str, kind: str) -> Manifest:
    [one] = of(overlay, kind)
    return one


def data(overlay: str, name: str) -> dict[str, str]:
    """What the ConfigMap `name` holds."""
    [one] = (each for each in of(overlay, "ConfigMap") if each["metadata"]["name"] == name)
    held: dict[str, str] = one["data"]
    return held


def applications(overlay: str) -> Iterator[Manifest]:
    """The specification of each SparkApplication, scheduled ones too."""
    yield from (one["spec"] for one in of(overlay, "SparkApplication"))
    yield from (one["spec"]["template"] for one in of(overlay, "ScheduledSparkApplication"))


def pods(overlay: str) -> Iterator[Manifest]:
    """Every pod, or template of one, with its `metadata` and `spec`, wherever it stands."""
    yield from (one["spec"]["template"] for one in of(overlay, "Deployment"))
    yield from (one["spec"]["jobTemplate"]["spec"]["template"] for one in of(overlay, "CronJob"))
    for spec in applications(overlay):
        yield spec["driver"]["template"]
        yield spec["executor"]["template"]
    for one in of(overlay, "ConfigMap"):
        yield from (yaml.safe_load(text) for name, text in one["data"].items() if name.endswith(".yaml"))


def component(pod: Manifest) -> str:
    return str(pod["metadata"]["labels"]["app.kubernetes.io/component"])


def refused(one: Manifest) -> str:
    """Why the API would not take `one`, a word that it does not know among the reasons; empty where it would."""
    if model := OPERATOR.get(one["kind"]):
        try:
            read = model.from_dict(one)
        except ValueError as exc:
            return str(exc)
        # What the model does not know is left out of what it writes.
        return "" if read is not None and read.to_dict() == one else "unknown words"
    try:
        kubernetes_validate.validate(one, API, strict=True)
    except kubernetes_validate.ValidationError as exc:
        return str(exc)
    return ""


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_api_takes_every_manifest(overlay: str) -> None:
    assert {one["kind"]: refused(one) for one in manifests(overlay) if refused(one)} == {}
    for pod in pods(overlay):
        assert refused({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}} | {"spec": pod["spec"]}) == ""


@pytest.mark.parametrize(
    ("overlay", "kind", "path", "word"),
    [
        ("plain", "CronJob", "spec", "concurencyPolicy"),
        ("plain", "NetworkPolicy", "spec", "ingres"),
        ("operator", "SparkApplication", "spec", "restartpolicy"),
        ("operator", "SparkApplication", "spec.driver", "memoryOverHead"),
        ("operator", "ScheduledSparkApplication", "spec.template", "sparkconf"),
        ("operator", "SparkApplication", "spec.driver.template.spec", "containerz"),
    ],
)
def test_a_word_that_is_wrong_is_refused(overlay: str, kind: str, path: str, word: str) -> None:
    one = yaml.safe_load(yaml.safe_dump(only(overlay, kind)))
    place = functools.reduce(lambda inner, key: inner[key], path.split("."), one)
    place[word] = "x"
    assert refused(one) != ""


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_pods_name_is_there(overlay: str) -> None:
    names = {kind: {one["metadata"]["name"] for one in of(overlay, kind)} for kind in ("ConfigMap", "ServiceAccount")}
    claims = {one["metadata"]["name"] for one in of(overlay, "PersistentVolumeClaim")}
    seen = list(pods(overlay))
    assert {component(pod) for pod in seen} == {"driver", "executor", "replay"}
    for pod in seen:
        spec = pod["spec"]
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        for volume in volumes.values():
            assert volume.get("configMap", {}).get("name", "") in {"", *names["ConfigMap"]}
            assert volume.get("persistentVolumeClaim", {}).get("claimName", "") in {"", *claims}
            if secret := volume.get("secret", {}).get("secretName"):
                assert f"kubectl create secret generic {secret}" in PAGE
        for container in spec["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes.keys()
            for source in container.get("envFrom", []):
                assert source["configMapRef"]["name"] in names["ConfigMap"]
        assert spec.get("serviceAccountName", "") in {"", *names["ServiceAccount"]}
    for application in applications(overlay):
        assert {application[which]["serviceAccount"] for which in ("driver", "executor")} <= names["ServiceAccount"]
    binding = only(overlay, "RoleBinding")
    assert binding["roleRef"]["name"] == only(overlay, "Role")["metadata"]["name"]
    assert {subject["name"] for subject in binding["subjects"]} <= names["ServiceAccount"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_image_is_the_one_that_the_overlay_names(overlay: str) -> None:
    written = yaml.safe_load((FOLDER / "overlays" / overlay / "kustomization.yaml").read_text())
    [image] = (f"{one['newName']}:{one['newTag']}" for one in written["images"])
    templates = [pod for pod in pods(overlay) if pod.get("kind") != "Pod"]  # Spark gives the others the driver's
    assert {container["image"] for pod in templates for container in pod["spec"]["containers"]} == {image}
    assert {application["image"] for application in applications(overlay)} <= {image}
    if overlay == "plain":
        [container] = only(overlay, "Deployment")["spec"]["template"]["spec"]["containers"]
        assert {"name": "EXECUTOR_IMAGE", "value": image} in container["env"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_run_as_the_images_user_may_write_where_it_says_and_no_more(overlay: str) -> None:
    [user] = re.findall(r"^USER (\d+)$", DOCKERFILE, re.MULTILINE)
    [state] = re.findall(r"^VOLUME (\S+)$", DOCKERFILE, re.MULTILINE)
    for pod in pods(overlay):
        assert pod["spec"]["securityContext"]["runAsNonRoot"]
        assert {pod["spec"]["securityContext"][name] for name in ("runAsUser", "fsGroup")} == {int(user)}
        [container] = pod["spec"]["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
        assert writable == {state, "/tmp", "/data"}
        assert "command" not in container  # it would take the place of the image's entrypoint


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_settings_are_known_and_secrets_are_files_that_the_page_makes(
    overlay: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [settings] = (one["data"] for one in of(overlay, "ConfigMap") if "TIDEMARK_ENV" in one["data"])
    files = {name: path for name, path in settings.items() if path.startswith(SECRETS)}
    assert len(files) == 2
    for path in files.values():
        assert f"--from-file={Path(path).name}=" in PAGE
    secrets = {name.removesuffix("_FILE"): "x" for name in files if name.endswith("_FILE")}
    rest = {name: value for name, value in settings.items() if name not in files and name != "TIDEMARK_ENV"}
    for name, value in (rest | secrets).items():
        monkeypatch.setenv(name, value)
    assert len(dict(variables(Settings, rest | secrets))) == len(rest | secrets)
    loaded = load(settings["TIDEMARK_ENV"], [f"paths.logs={tmp_path}"])
    # No setting that is a secret has its value here.
    held = {name for name in rest if isinstance(of_name(loaded, name), SecretStr)}
    assert held == set()


def of_name(settings: Settings, variable: str) -> object:
    path = variable.removeprefix("TIDEMARK_").lower().split("__")
    return functools.reduce(getattr, path, settings)


def base_settings(overlay: str) -> dict[str, str]:
    [settings] = (one["data"] for one in of(overlay, "ConfigMap") if "TIDEMARK_ENV" in one["data"])
    return dict(settings)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_ports_are_the_same_in_settings_probes_scrapes_spark_and_network_rules(overlay: str) -> None:
    port = int(base_settings(overlay)["TIDEMARK_METRICS__PORT"])
    assert f"EXPOSE {port}" in DOCKERFILE
    [driver] = (pod for pod in pods(overlay) if any("startupProbe" in each for each in pod["spec"]["containers"]))
    [container] = driver["spec"]["containers"]
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    assert ports["metrics"] == port
    assert driver["metadata"]["annotations"]["prometheus.io/port"] == str(port)
    probes = {probe: container[probe]["httpGet"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {probe["port"] for probe in probes.values()} == {"metrics"}
    assert [probe["path"] for probe in probes.values()] == ["/healthz", "/healthz", "/readyz"]
    policy = only(overlay, "NetworkPolicy")["spec"]
    among, scrapes = ({each["port"] for each in rule["ports"]} for rule in policy["ingress"])
    assert scrapes == {port}
    assert among == set(spark_ports(overlay))
    brokers = base_settings(overlay)["TIDEMARK_KAFKA__BOOTSTRAP_SERVERS"].split(",")
    out = {each["port"] for rule in policy["egress"] for each in rule["ports"]}
    assert out >= among | {int(broker.rpartition(":")[2]) for broker in brokers}


def spark_ports(overlay: str) -> Iterator[int]:
    """What Spark's drivers and executors listen on."""
    names = ("spark.driver.port", "spark.blockManager.port")
    for spec in applications(overlay):
        yield from (int(spec["sparkConf"][name]) for name in names)
    for one in of(overlay, "Deployment"):
        words = one["spec"]["template"]["spec"]["containers"][0]["args"]
        yield from (int(word.partition(f"--conf={name}=")[2]) for name in names for word in words if f"{name}=" in word)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_rules_and_budget_select_the_pods_that_there_are(overlay: str) -> None:
    labels = [pod["metadata"]["labels"].items() for pod in pods(overlay)]
    policy = only(overlay, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"].items()
    assert all(policy <= of_pod for of_pod in labels)
    budget = only(overlay, "PodDisruptionBudget")["spec"]
    selected = [of_pod for of_pod in labels if budget["selector"]["matchLabels"].items() <= of_pod]
    assert {dict(of_pod)["app.kubernetes.io/component"] for of_pod in selected} == {"executor"}
    # Of pods without a controller Kubernetes takes nothing else.
    assert isinstance(budget["minAvailable"], int) and "maxUnavailable" not in budget


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_have_the_time_to_end_in_order(overlay: str) -> None:
    allowed = milliseconds(load("cluster").run.stop_within)
    assert all(pod["spec"]["terminationGracePeriodSeconds"] * 1000 > allowed for pod in pods(overlay))


def test_the_deployment_runs_a_job_in_client_mode_and_never_two_at_once() -> None:
    spec = only("plain", "Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]["type"]) == (1, "Recreate")
    [container] = spec["template"]["spec"]["containers"]
    script, *words = container["args"]
    assert script == "./spark-submit.sh"
    job, spark = submit.split(words)
    options = arguments.parse_job(job)
    catalog.require(options.job)
    assert spark[0].startswith("--master=k8s://")
    named = set(re.findall(r"\$\((\w+)\)", " ".join(spark)))
    assert named == {each["name"] for each in container["env"]}
    [template] = (word.partition("podTemplateFile=")[2] for word in spark if "podTemplateFile" in word)
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in spec["template"]["spec"]["volumes"]}
    held = data("plain", volumes[mounts[str(Path(template).parent)]]["configMap"]["name"])
    assert Path(template).name in held


def test_replays_are_run_by_the_schedulers_words_and_one_at_a_time() -> None:
    cron, scheduled = only("plain", "CronJob")["spec"], only("operator", "ScheduledSparkApplication")["spec"]
    assert {spec["concurrencyPolicy"] for spec in (cron, scheduled)} == {"Forbid"}
    assert cron["schedule"] == scheduled["schedule"]
    [container] = cron["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert container["args"][0] == "local/tidemark"
    assert container["args"][1:] == scheduled["template"]["arguments"]
    operation, *words = scheduled["template"]["arguments"]
    options = arguments.parse_replay(words)
    assert (operation, options.step) == ("replay", "catch-up")
    catalog.require(options.job)
    duration(options.every)
    rule = cron["jobTemplate"]["spec"]["podFailurePolicy"]["rules"][0]["onExitCodes"]
    assert rule["containerName"] == container["name"]
    assert rule["values"] == [2, 3, 4]


def test_what_the_operator_starts_is_what_spark_submit_sh_starts() -> None:
    lines = (ROOT / "conf" / "spark-defaults.conf").read_text().splitlines()
    defaults = dict(line.split(maxsplit=1) for line in lines if line and not line.startswith("#"))
    for spec in applications("operator"):
        assert spec["sparkConf"].items() >= defaults.items()
        assert spec["mainApplicationFile"] == f"local:///srv/tidemark/{submit.SCRIPT.relative_to(ROOT)}"
        assert "-Xss16m" in spec["driver"]["javaOptions"]
    run, *words = only("operator", "SparkApplication")["spec"]["arguments"]
    assert run == arguments.RUN
    catalog.require(arguments.parse_job(words).job)
    assert only("operator", "SparkApplication")["spec"]["restartPolicy"]["type"] == "Always"
