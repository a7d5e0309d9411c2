"""Gives every command the options that choose its settings, and refuses secrets on a command line.

The list of processes, the shell's history and a scheduler's records show every word of a command line.
"""

import argparse
import re
from collections.abc import Iterator, Sequence

from conf import setting_sources
from conf.errors import TidemarkError
from conf.settings import ENVIRONMENTS, Settings, load

# What ends the name of another system's secret: `fs.s3a.secret.key`, `keyPassword`, `sasl.jaas.config`.
SECRET_NAME = re.compile(
    r"(password|passphrase|secret|secret[._-]?key|access[._-]?key|token|jaas[.]config"
    r"|(account[.]key|client[.]secret)[.][\w.-]+)$",
    re.IGNORECASE,
)
JAVA_PROPERTY = re.compile(r"-D([\w.-]+)=")
# Names a secret of Kubernetes, and is none.
REFERENCE = "secretkeyref"
ROOTS = ("tables", "checkpoints")


def settings_options(with_roots: bool = False) -> argparse.ArgumentParser:
    """Return the parent parser of the options that `settings_of` reads: `--env`, `--set`, with roots `--tables` and
    `--checkpoints`."""
    parent = argparse.ArgumentParser(add_help=False)
    group = parent.add_argument_group("settings")
    group.add_argument("--env", choices=ENVIRONMENTS, help="which conf/*.toml lies on base.toml (default: local)")
    group.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="one setting; may be repeated")
    for name in ROOTS if with_roots else ():
        group.add_argument(f"--{name}", metavar="ROOT", help=f"where {name} lie (paths.{name})")
    return parent


def settings_of(options: argparse.Namespace) -> Settings:
    """Return the settings that those options ask for, roots before `--set`; errors as `conf.settings.load` has them."""
    roots = {name: getattr(options, name, None) for name in ROOTS}
    return load(options.env, [*options.set, *(f"paths.{name}={root}" for name, root in roots.items() if root)])


def parse(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace:
    """Return what `parser` makes of a command line that holds no secret of the settings, with or without `--set`.

    Raises:
        TidemarkError: BAD_ARGUMENTS, with the variable that takes the secret; the value is not shown.
        SystemExit: 2, where the command line is wrong.
    """
    refuse_secrets(words)
    return parser.parse_args(words)


def run(parser: argparse.ArgumentParser, words: Sequence[str]) -> int:
    """Return the exit code of the subcommand that a command line names, by its default `run(settings, options)`.

    Errors are those of `parse` and `settings_of`.
    """
    options = parse(parser, words)
    code: int = options.run(settings_of(options), options)
    return code


def refuse_secrets(words: Sequence[str]) -> None:
    """Refuse words that hold a secret of the settings; errors as `parse` has them."""
    for word in words:
        setting_sources.refuse_secret(Settings, word)


def refuse_spark_secrets(spark_options: Sequence[str]) -> None:
    """Refuse a secret of another system among spark-submit's own options (`--conf NAME=VALUE`, `-DNAME=VALUE`).

    Raises:
        TidemarkError: BAD_ARGUMENTS, with the name; the value is not shown.
    """
    for name in _configured(spark_options):
        if SECRET_NAME.search(name) and REFERENCE not in name.lower():
            remedy = (
                "give it where that client looks for it: a variable of its own, such as AWS_SECRET_ACCESS_KEY, "
                "or a file that only you can read, such as core-site.xml in HADOOP_CONF_DIR"
            )
            raise TidemarkError("BAD_ARGUMENTS", f"{name} would show in the list of processes", remedy)


def positive_number(text: str) -> float:
    """Read an option that is a number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return number


def whole_number(text: str) -> int:
    """Read an option that is a whole number of at least 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number")
    return int(text)


def positive_count(text: str) -> int:
    """Read an option that is a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def _configured(spark_options: Sequence[str]) -> Iterator[str]:
    for before, word in zip(["", *spark_options], spark_options, strict=False):
        text = word.removeprefix("--conf=")
        if (before in ("--conf", "-c") or text != word) and "=" in text:
            yield text.partition("=")[0].strip()
        yield from JAVA_PROPERTY.findall(word)
