"""The one command: what it lists, what it refuses, how it ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from conf import ROOT
from conf.errors import TidemarkError
from local import broker as local_broker
from local import cli
from local.broker import Cluster
from local.jars import folder
from local.processes import wait_for

TIDEMARK = str(ROOT / "local" / "tidemark")


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert listed == list(cli.COMMANDS)


def test_the_launcher_knows_every_command() -> None:
    launcher = (ROOT / "local" / "tidemark").read_text()
    listed = (ROOT / "local" / "cli.py").read_text()
    for name, command in cli.COMMANDS.items():
        in_spark = command.operation or name == "replay"
        assert f'    "{name}": Command(' in listed if in_spark else f" {name} " in launcher.replace(")", " ")


def test_an_unknown_command_gets_the_nearest_name() -> None:
    with pytest.raises(TidemarkError, match=r"UNKNOWN_COMMAND: there is no command `brokr`; did you mean `broker`\?"):
        cli.main(["brokr"])


def test_the_settings_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "show", "--set", "broker.port=9092"]) == 0
    assert "port = 9092" in capsys.readouterr().out


def test_help_works_from_any_folder_without_packages(tmp_path: Path) -> None:
    (tmp_path / "conf.py").write_text("raise SystemExit('the wrong conf was imported')")
    environment = os.environ | {"TIDEMARK_STATE": str(tmp_path / "none")}
    done = subprocess.run([TIDEMARK], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: local/tidemark COMMAND")
    assert not (tmp_path / "none").exists()


def test_nothing_is_started_where_a_cluster_is_configured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TIDEMARK_STATE", str(tmp_path))
    monkeypatch.setenv("TIDEMARK_KAFKA__BOOTSTRAP_SERVERS", "example.org:9092")
    assert local_broker.main(["start"]) == 0
    assert capsys.readouterr().out.startswith("kafka.bootstrap_servers is example.org:9092: that cluster is used")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_start_status_stop_and_clean(tmp_path: Path) -> None:
    state = tmp_path / "state"
    (state / "jars").mkdir(parents=True)
    (state / "jars" / "broker").symlink_to(folder("broker"))
    (state / cli.STATE_MARKER).touch()
    assert broker(state, "status") == (1, "no embedded broker is running: `local/tidemark broker start` starts one")
    assert broker(state, "stop") == (0, "no broker was running")
    code, told = broker(state, "start")
    servers = (state / "broker" / "bootstrap.servers").read_text().strip()
    assert (code, told) == (0, f"broker started: {servers}")
    assert broker(state, "start") == (0, f"broker runs already: {servers}")
    assert broker(state, "status")[1].startswith(f"node 1 at {servers}: pid ")
    assert "Kafka Server started" in broker(state, "logs")[1]
    pid = Cluster(state / "broker", state / "logs").nodes[0].pid()
    assert run(state, "clean") == (0, f"removed {state}")
    assert not Path(f"/proc/{pid}").exists()
    assert not state.exists()


def broker(state: Path, *arguments: str) -> tuple[int, str]:
    return run(state, "broker", *arguments)


def run(state: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and output of a command with the state in another folder."""
    environment = os.environ | {"TIDEMARK_STATE": str(state), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-P", "-m", "local.cli", *arguments]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    return done.returncode, done.stdout.strip()


def test_interrupting_a_start_leaves_no_broker(tmp_path: Path) -> None:
    state = tmp_path / "state"
    (state / "jars").mkdir(parents=True)
    (state / "jars" / "broker").symlink_to(folder("broker"))
    environment = os.environ | {"TIDEMARK_STATE": str(state), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-P", "-m", "local.cli", "broker", "start"]
    pid_file = state / "broker" / "node-1" / "pid"
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: pid_file.exists() and pid_file.read_text() != "", 60, lambda: AssertionError("no broker"))
        pid = int(pid_file.read_text())
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    assert not Path(f"/proc/{pid}").exists()
    assert not (state / "broker" / "bootstrap.servers").exists()


def test_clean_needs_no_layout_to_end_the_broker(tmp_path: Path) -> None:
    state = tmp_path / "state"
    home = state / "broker" / "node-1"
    home.mkdir(parents=True)
    (state / cli.STATE_MARKER).touch()
    (home.parent / "cluster.json").touch()
    with subprocess.Popen(
        [sys.executable, "-c", "input()", str(home / "server.properties")], stdin=subprocess.PIPE
    ) as broker:
        (home / "pid").write_text(f"{broker.pid}\n")
        assert run(state, "clean") == (0, f"removed {state}")
        assert broker.wait(10) == -signal.SIGTERM


def test_clean_refuses_a_folder_that_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "letters.txt").touch()
    monkeypatch.setenv("TIDEMARK_STATE", str(tmp_path))
    with pytest.raises(TidemarkError, match=f"NOT_OURS: TIDEMARK_STATE is {tmp_path}"):
        cli.clean([])
    assert (tmp_path / "letters.txt").exists()


def test_clean_of_nothing_is_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMARK_STATE", str(tmp_path / "none"))
    assert cli.clean([]) == 0
