"""The commands of `local/tidemark`; each is imported only when it is asked for."""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from conf import ROOT, state_dir
from conf.errors import TidemarkError, exit_on_error, nearest
from local.processes import end_on_signal


@dataclass(frozen=True)
class Command:
    """`target` is the module and the function that takes the arguments after the command's name."""

    help: str
    target: str


COMMANDS = {
    "demo": Command("start a broker, publish flights, run the main job, show answers", "local.demo:main"),
    "test": Command("run the tests; arguments go to pytest", "local.cli:test"),
    "setup": Command("only install: packages, both jar sets", "local.cli:setup"),
    "doctor": Command("check this machine; a repair for each failing line", "local.doctor:main"),
    "broker": Command("start | stop | status | logs: the embedded Kafka broker", "local.broker_command:main"),
    "topics": Command("plan | apply: conf/topics.toml against the cluster", "local.topics:main"),
    "publish": Command("events or files into a topic", "producers.cli:main"),
    "replay": Command("plan | run | verify | cutover | undo | catch-up: the past again", "local.replay:main"),
    "quarantine": Command("list | inspect | redrive | audit | queue: rejects", "producers.quarantine.cli:main"),
    "maintain": Command("tables | checkpoints | ledgers | state: upkeep while jobs run", "local.operations:maintain"),
    "checkpoint": Command(
        "doctor | repartition | rename: does a checkpoint fit the code", "local.operations:checkpoint"
    ),
    "schemas": Command("the event contracts and their registry", "schemas.cli:main"),
    "coverage": Command("show | check: which offsets each table and topic holds", "jobs.coverage.cli:main"),
    "config": Command("show: the merged settings, secrets masked", "local.cli:config"),
    "notebook": Command("open the notebooks in JupyterLab", "local.cli:notebook"),
    "lock": Command("make the locks in conf/ anew", "local.lock:main"),
    "clean": Command("stop the broker and remove the state folder", "local.clean:main"),
}


def main(argv: Sequence[str]) -> int:
    """Run one command.

    Raises:
        TidemarkError: UNKNOWN_COMMAND, with the nearest name.
    """
    if not argv or argv[0] in {"-h", "--help", "help"}:
        print(usage())
        return 0
    name, *arguments = argv
    if name not in COMMANDS:
        raise TidemarkError("UNKNOWN_COMMAND", f"there is no command `{name}`", nearest(name, list(COMMANDS)))
    end_on_signal()
    module, _, function = COMMANDS[name].target.partition(":")
    return int(getattr(import_module(module), function)(arguments))


def usage() -> str:
    """Every command with what it does."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.help}" for name, command in COMMANDS.items()]
    state = f"Everything that it makes lies in {state_dir()}."
    return "\n".join(["usage: local/tidemark COMMAND [arguments]", "", *lines, "", state])


def setup(argv: Sequence[str]) -> int:
    """Say that all is there: the launcher has installed it before this runs."""
    argparse.ArgumentParser(prog="local/tidemark setup", description="Install packages and jars.").parse_args(argv)
    print(f"ready: packages and jars lie in {state_dir()}; next: local/tidemark demo")
    return 0


def config(argv: Sequence[str]) -> int:
    """Print the merged settings."""
    from conf import settings  # here, so that the commands without packages can load this module

    parser = argparse.ArgumentParser(prog="local/tidemark config")
    parser.add_argument("action", choices=["show"])
    parser.add_argument("--env", choices=settings.ENVIRONMENTS)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args(argv)
    print(settings.show(settings.load(options.env, options.set)))
    return 0


def test(argv: Sequence[str]) -> int:
    """Become pytest, in the checkout."""
    os.chdir(ROOT)
    os.execv(sys.executable, [sys.executable, "-P", "-m", "pytest", *argv])


def notebook(argv: Sequence[str]) -> int:
    """Become JupyterLab; what it and IPython keep lies in the state folder too."""
    for variable in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        folder = state_dir() / "jupyter" / variable.lower().removesuffix("_dir")
        folder.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault(variable, str(folder))
    os.chdir(ROOT / "notebooks")
    os.execv(sys.executable, [sys.executable, "-P", "-m", "jupyterlab", *argv])


if __name__ == "__main__":
    exit_on_error(lambda: main(sys.argv[1:]))
