"""Runs the commands of `local/tidemark`; each is imported only when it is asked for."""

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from conf import ROOT, credentials, home, state_dir
from conf.errors import TidemarkError, exit_on_error, nearest
from local.processes import end_on_signal, interrupts_held_back
from local.state_folder import remove_dead

STATE_MARKER = ".tidemark-state"  # written by local/bootstrap.sh when it makes the folder


@dataclass(frozen=True)
class Command:
    """A command by what carries it out: a function, or an operation in Spark.

    Args:
        target: the module and the function that takes the arguments after the command's name.
        operation: of a command without `target`, its folder in jobs/operations/.
    """

    help: str
    target: str = ""
    operation: str = ""


COMMANDS = {
    "demo": Command("flights | regions: from nothing to answers, or two clusters with one state", "local.demo:main"),
    "test": Command("run the tests; arguments go to pytest", "local.cli:test"),
    "setup": Command("only install: packages, both jar sets", "local.cli:setup"),
    "doctor": Command("check this machine; a repair for each failing line", "local.doctor:main"),
    "broker": Command("start | stop | status | logs: the embedded Kafka broker", "local.broker:main"),
    "topics": Command("plan | apply: conf/topics.toml against the cluster", "local.topics:main"),
    "acls": Command("plan | apply: what jobs and commands must be allowed to do", "local.acls:main"),
    "kafka": Command(
        "acls | configs | consumer-groups | topics | transactions: Kafka's tools",
        "local.kafka_commands:kafka_tools",
    ),
    "publish": Command("events or files into a topic", "producers.cli:main"),
    "replay": Command("plan | run | verify | cutover | undo | catch-up: the past again", "local.submit:replay"),
    "quarantine": Command("list | inspect | redrive | audit | queue: rejects", "producers.quarantine.cli:main"),
    "maintain": Command("tables | checkpoints | ledgers | state: upkeep while jobs run", operation="maintenance"),
    "checkpoint": Command(
        "doctor | repartition | rename: does a checkpoint fit the code", operation="checkpoint_doctor"
    ),
    "schemas": Command("the event contracts and their registry", "schemas.cli:main"),
    "transactions": Command("which open transactions hold readers back; --abort", "local.kafka_commands:transactions"),
    "history": Command("micro-batches of every query, and how they ended", "jobs.operations.history:main"),
    "page": Command("accounts, queries, rejects and topics in a browser", "local.page.server:main"),
    "compare": Command("whether two tables hold the same rows, and which not", "jobs.operations.compare:main"),
    "coverage": Command("show | check: which offsets each table and topic holds", "jobs.operations.coverage.cli:main"),
    "config": Command("show: the merged settings, secrets masked", "local.cli:config"),
    "notebook": Command("open the notebooks in JupyterLab", "local.cli:notebook"),
    "sbom": Command("packages and jars with hashes and licences, as CycloneDX", "local.sbom:main"),
    "lock": Command("make the locks in conf/ anew", "local.lock:main"),
    "clean": Command("stop the broker and remove the state folder", "local.cli:clean"),
}


def main(argv: Sequence[str]) -> int:
    """Run one command; raises TidemarkError UNKNOWN_COMMAND, with the nearest name."""
    if not argv or argv[0] in {"-h", "--help", "help"}:
        print(usage())
        return 0
    name, *arguments = argv
    if name not in COMMANDS:
        credentials.refuse_secrets(argv)
        raise TidemarkError("UNKNOWN_COMMAND", f"there is no command `{name}`", nearest(name, list(COMMANDS)))
    end_on_signal()
    if operation := COMMANDS[name].operation:
        with interrupts_held_back():
            from local.submit import run_in_spark  # here: the commands without packages load this module, too

        return run_in_spark(operation, arguments)
    module, _, function = COMMANDS[name].target.partition(":")
    with interrupts_held_back():
        carry_out = getattr(import_module(module), function)
    try:
        return int(carry_out(arguments))
    except OSError as exc:
        if exc.errno is not None:  # an error of the system's: no package is needed to tell it
            raise
        from jobs.connectors.files import is_of_store, store_refuses

        if not is_of_store(exc):
            raise
        raise store_refuses("the object store", exc) from exc


def usage() -> str:
    """Return every command with what it does."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.help}" for name, command in COMMANDS.items()]
    state = f"Everything that it makes lies in {state_dir()}."
    return "\n".join(["usage: local/tidemark COMMAND [arguments]", "", *lines, "", state])


def setup(argv: Sequence[str]) -> int:
    """Archive Spark's classes; packages and jars the launcher has installed before this runs."""
    credentials.refuse_secrets(argv)
    argparse.ArgumentParser(prog="local/tidemark setup", description="Install packages and jars.").parse_args(argv)
    from local import driver  # here, so that the commands without packages can load this module

    print(driver.make_archive())
    print(f"ready: packages and jars lie in {state_dir()}; next: local/tidemark demo")
    return 0


def config(argv: Sequence[str]) -> int:
    """Print the merged settings."""
    # Here, so that the commands without packages can load this module.
    from conf import command_line
    from conf.settings import show

    parser = argparse.ArgumentParser(prog="local/tidemark config", parents=[command_line.settings_options()])
    parser.add_argument("action", choices=["show"])
    print(show(command_line.settings_of(command_line.parse(parser, argv))))
    return 0


def clean(argv: Sequence[str]) -> int:
    """Stop the embedded broker and remove the state folder: packages, jars, topics' data, tables, checkpoints, logs."""
    credentials.refuse_secrets(argv)
    argparse.ArgumentParser(prog="local/tidemark clean", description=clean.__doc__).parse_args(argv)
    state = state_dir()
    if not state.exists():
        print(f"nothing to remove: there is no {state}")
        return 0
    _require_ours(state)
    _stop_broker(state)
    remove_dead()
    try:
        shutil.rmtree(state)
    except OSError as exc:  # it names a file without its folder
        raise OSError(exc.errno, exc.strerror, str(state)) from exc
    print(f"removed {state}")
    return 0


def _require_ours(state: Path) -> None:
    """Refuse a folder that Tidemark did not make; raises TidemarkError NOT_OURS."""
    ours = state == ROOT / ".tidemark" or (state / STATE_MARKER).is_file()
    if not ours or state in (ROOT, *ROOT.parents, home()):
        remedy = "look at it, and remove it by hand if nobody needs it"
        raise TidemarkError("NOT_OURS", f"TIDEMARK_STATE is {state}, a folder that Tidemark did not make", remedy)


def _stop_broker(state: Path) -> None:
    """Stop the embedded broker, where there is one.

    Raises:
        TidemarkError: NO_PACKAGES, where one was started, and the packages that recognise its process are gone.
    """
    if not list((state / "broker").glob("node-*/pid")):
        return
    try:
        from local.broker import Cluster  # here: clean works without packages too
    except ModuleNotFoundError as exc:
        what = "a broker may run and cannot be stopped without the packages"
        raise TidemarkError("NO_PACKAGES", what, "run `local/tidemark setup`, then clean") from exc
    Cluster(state / "broker", state / "logs").stop()


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
    # Jupyter refuses root, the only account of many containers; it listens on loopback unless told otherwise.
    root = ["--allow-root"] if os.geteuid() == 0 and "--allow-root" not in argv else []
    os.execv(sys.executable, [sys.executable, "-P", "-m", "jupyterlab", *root, *argv])


if __name__ == "__main__":
    exit_on_error(lambda: main(sys.argv[1:]))
