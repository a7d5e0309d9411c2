"""Runs the registry's commands: list, show, register, check."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from conf import command_line, topics
from conf.errors import TidemarkError
from conf.sections import CompatibilityLevel
from schemas.compatibility import obstacles
from schemas.contracts import contract, require_event, subject_of_stream
from schemas.open_registry import open_registry
from schemas.registry import FileRegistry, Registry, require_registry_in
from schemas.schema_text import normalized


def main(argv: Sequence[str]) -> int:
    """Run `schemas ARGV`; returns the exit code, raises TidemarkError."""
    arguments = command_line.parse(_parser(), argv)
    configured = command_line.settings_of(arguments).registry
    if arguments.command == "check":
        if arguments.against is not None:
            require_registry_in(arguments.against)
        return check_contracts(arguments.against or configured.path, arguments.level or configured.compatibility)
    registry = open_registry(configured)
    if arguments.command == "list":
        return list_schemas(registry)
    if arguments.command == "show":
        return show_schema(registry, arguments.schema)
    return register_contracts(registry)


def list_schemas(registry: Registry) -> int:
    """Print every registered version: id, subject, version, and the type of one that is no Avro."""
    registered = [schema for subject in registry.subjects() for schema in registry.all_versions(subject)]
    print(f"{'id':>4}  {'subject':<28} version")
    for schema in sorted(registered, key=lambda schema: schema.id):
        kind = "" if schema.is_avro else f" {schema.kind}"
        print(f"{schema.id:>4}  {schema.subject:<28} {schema.version}{kind}")
    return 0


def show_schema(registry: Registry, subject_or_id: str) -> int:
    """Print the text of an id, or of a subject's newest version."""
    text = registry.schema(int(subject_or_id)) if subject_or_id.isdecimal() else registry.latest(subject_or_id).text
    print(text.rstrip())
    return 0


def register_contracts(registry: Registry) -> int:
    """Register the contracts of every declared topic, under its subjects; what is registered keeps its id."""
    for subject, name in _declared().items():
        before, text = registry.subjects(), contract(name)
        require_event(subject, text)
        schema_id = registry.register(subject, text)
        newest = registry.latest(subject)
        state = "new subject" if subject not in before else f"version {newest.version}"
        print(f"{schema_id:>4}  {subject:<28} {state}")
    return 0


def check_contracts(folder: Path, level: CompatibilityLevel) -> int:
    """Compare every declared topic's contract with its earlier versions in the file store `folder`; asks no network.
    Returns 1 where one may not follow them or is none that jobs can read, each conflict printed on a line of its own.
    """
    registry, broken = FileRegistry(folder), 0
    for subject, name in _declared().items():
        text = contract(name)
        try:
            require_event(subject, text)
        except TidemarkError as exc:
            print(exc)
            broken += 1
            continue
        earlier = registry.all_versions(subject)
        known = [normalized(version.text) for version in earlier]
        if normalized(text) in known:  # it is a version: those before it
            earlier = earlier[: known.index(normalized(text))]
        problems = obstacles(text, earlier, level)
        for problem in problems:
            print(f"{subject} {problem.what}; {problem.remedy}")
        if not problems:
            print(f"{subject}: {name}.avsc fits; earlier versions: {len(earlier)}, level: {level}")
        broken += bool(problems)
    return 1 if broken else 0


def _declared() -> dict[str, str]:
    """Return the contract of each declared topic's streams, by subject."""
    declared = topics.load_topics().values()
    return {subject_of_stream(stream): name for topic in declared for stream, name in topic.streams.items()}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="local/tidemark schemas",
        description="The topics' schemas, by subject and id.",
        parents=[command_line.settings_options()],
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="every registered version")
    show = commands.add_parser("show", help="the text of one schema")
    show.add_argument("schema", metavar="SUBJECT|ID", help="a subject (its newest version), or a schema id")
    commands.add_parser("register", help="register the declared topics' contracts; safe to repeat")
    check = commands.add_parser("check", help="whether the contracts may follow their earlier versions; offline")
    check.add_argument("--level", choices=get_args(CompatibilityLevel), help="default: registry.compatibility")
    check.add_argument("--against", type=Path, metavar="FOLDER", help="a file store; default: registry.path")
    return parser
