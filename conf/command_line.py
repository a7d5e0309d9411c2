"""Gives every command the options that choose its settings, and refuses what no command line may hold: secrets, first
of all.

The list of processes, the shell's history and a scheduler's records show every word of a command line.
"""

import argparse
import shlex
from collections.abc import Callable, Collection, Sequence

from conf import credentials, setting_sources
from conf.errors import TidemarkError
from conf.names import is_text
from conf.setting_types import LONG
from conf.settings import ENVIRONMENTS, Settings, load

ROOTS = ("tables", "checkpoints")
SHOWN_DIGITS = 40
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
    """Refuse words that no command line may hold: secrets of the settings or of another system, and what is no text;
    raises TidemarkError BAD_ARGUMENTS, with what takes the secret in its place; no value is shown."""
    for word in words:
        setting_sources.refuse_secret(Settings, word)
    credentials.refuse_secrets(words)
    for word in words:
        if not is_text(word):
            raise TidemarkError("BAD_ARGUMENTS", f"{word!a} is no text in UTF-8", "write it in UTF-8")


def split_words(text: str) -> list[str]:
    """Return the words of a command line within one argument; raises TidemarkError BAD_ARGUMENTS, as `check` too."""
    try:
        words = shlex.split(text)
        check(words)
        return words
    except ValueError as exc:
        check(text.split())  # before it is shown
        raise TidemarkError("BAD_ARGUMENTS", f"`{text}` is no command line: {exc}", "close what is open") from None


def positive_number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not LEAST <= number <= MOST:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0, from {LEAST:f} to {MOST:,}")
    return number


def count_up_to(most: int, least: int = 1) -> Callable[[str], int]:
    """Return what reads an option that is a whole number from `least` to `most`."""

    def count(text: str) -> int:
        # Python takes no text of thousands of digits for a number.
        is_number = text.isdecimal() and len(text.lstrip("0")) <= len(str(most))
        if not is_number or not least <= int(text) <= most:
            shown = text if len(text) <= SHOWN_DIGITS else f"{text[:SHOWN_DIGITS]}…"
            raise argparse.ArgumentTypeError(f"{shown!r} is no whole number from {least} to {most}")
        return int(text)

    return count


whole_number = count_up_to(LONG, least=0)
positive_count = count_up_to(LONG)


def table_lines(rows: Sequence[Sequence[str]], numbers: Collection[str]) -> list[str]:
    """Return a table for people, a line for each row, of which the first has the headings.

    Args:
        numbers: the headings of columns that end below one another.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            text.rjust(width) if heading in numbers else text.ljust(width)
            for heading, text, width in zip(rows[0], row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]
