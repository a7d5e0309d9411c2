"""Gives every command the options that choose its settings, and refuses what no command line may hold: secrets, first
of all.

The list of processes, the shell's history and a scheduler's records show every word of a command line.
"""

import argparse
import shlex
from collections.abc import Sequence

from conf import secret_words, setting_sources
from conf.errors import TidemarkError
from conf.names import is_text
from conf.settings import ENVIRONMENTS, Settings, load

ROOTS = ("tables", "checkpoints")
LARGEST = 2**63 - 1  # that Kafka, Arrow and Spark have room for
LEAST, MOST = 0.000_001, 1_000_000_000  # seconds, or so many a second: a clock can wait for it


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
    """Return what `parser` makes of a command line; errors as `check`, and SystemExit(2) where it is wrong."""
    check(words)
    return parser.parse_args(words)


def run(parser: argparse.ArgumentParser, words: Sequence[str]) -> int:
    """Return the exit code of the subcommand that a command line names, by its default `run(settings, options)`.

    Errors are those of `parse` and `settings_of`.
    """
    options = parse(parser, words)
    code: int = options.run(settings_of(options), options)
    return code


def check(words: Sequence[str]) -> None:
    """Refuse words that no command line may hold: secrets of the settings or of another system, and what is no text.

    Raises:
        TidemarkError: BAD_ARGUMENTS, with what takes the secret in its place; no value is shown.
    """
    for before, word in zip(["", *words], words, strict=False):
        setting_sources.refuse_secret(Settings, word)
        if name := secret_words.named_secret(word):
            raise _would_show(name)
        if secret_words.holds_login(word):
            raise _would_show(f"the user and password in {_place(before, word)}")
        if not is_text(word):
            raise TidemarkError("BAD_ARGUMENTS", f"{word!a} is no text in UTF-8", "write it in UTF-8")


def split_words(text: str) -> list[str]:
    """Return the words of a command line within one argument; raises TidemarkError BAD_ARGUMENTS."""
    try:
        return shlex.split(text)
    except ValueError as exc:
        raise TidemarkError("BAD_ARGUMENTS", f"`{text}` is no command line: {exc}", "close what is open") from None


def positive_number(text: str) -> float:
    """Read an option that is a number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not LEAST <= number <= MOST:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0, from {LEAST:f} to {MOST:,}")
    return number


def whole_number(text: str) -> int:
    """Read an option that is a whole number of at least 0."""
    if not _is_count(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 to {LARGEST}")
    return int(text)


def positive_count(text: str) -> int:
    """Read an option that is a whole number of at least 1."""
    if not _is_count(text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 to {LARGEST}")
    return int(text)


def _is_count(text: str) -> bool:
    # Python takes no text of thousands of digits for a number.
    return text.isdecimal() and len(text.lstrip("0")) <= len(str(LARGEST)) and int(text) <= LARGEST


def _place(before: str, word: str) -> str:
    """Return what a word gives a URL to: a property, or an option."""
    named, equals, _ = word.partition("://")[0].rpartition("=")
    if equals:
        return named.rpartition("=")[2]
    return before if before.startswith("-") else "a URL"


def _would_show(what: str) -> TidemarkError:
    remedy = (
        "give it where that client looks for it: a setting or a variable of its own, such as AWS_SECRET_ACCESS_KEY, "
        "or a file that only you can read, such as core-site.xml in HADOOP_CONF_DIR"
    )
    return TidemarkError("BAD_ARGUMENTS", f"{what} would show in the list of processes", remedy)
