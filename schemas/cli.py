"""The registry's commands: list, show, register."""

import argparse
from collections.abc import Sequence

from conf import settings, topics
from schemas.contracts import contract
from schemas.registry import Registry, open_registry
from schemas.subjects import subject_of_stream


def main(argv: Sequence[str]) -> int:
    """Run `schemas ARGV`; returns the exit code, raises TidemarkError."""
    arguments = _parser().parse_args(argv)
    registry = open_registry(settings.load(arguments.env, arguments.set).registry)
    if arguments.command == "list":
        return list_schemas(registry)
    if arguments.command == "show":
        return show_schema(registry, arguments.schema)
    return register_contracts(registry)


def list_schemas(registry: Registry) -> int:
    """Print every registered version: id, subject, version."""
    print(f"{'id':>4}  {'subject':<28} version")
    registered = [schema for subject in registry.subjects() for schema in registry.versions(subject)]
    for schema in sorted(registered, key=lambda schema: schema.id):
        print(f"{schema.id:>4}  {schema.subject:<28} {schema.version}")
    return 0


def show_schema(registry: Registry, wanted: str) -> int:
    """Print the text of an id, or of a subject's newest version."""
    text = registry.schema(int(wanted)) if wanted.isdecimal() else registry.latest(wanted).text
    print(text.rstrip())
    return 0


def register_contracts(registry: Registry) -> int:
    """Register the contracts of every declared topic, under its subjects; what is registered keeps its id."""
    streams = {stream: name for topic in topics.load_topics().values() for stream, name in topic.streams.items()}
    for stream, name in streams.items():
        before, subject = registry.subjects(), subject_of_stream(stream)
        schema_id = registry.register(subject, contract(name))
        newest = registry.latest(subject)
        state = "new subject" if subject not in before else f"version {newest.version}"
        print(f"{schema_id:>4}  {subject:<28} {state}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="local/tidemark schemas", description="The topics' schemas, by subject and id."
    )
    parser.add_argument("--env", help="settings overlay: local or cluster")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="one setting")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="every registered version")
    show = commands.add_parser("show", help="the text of one schema")
    show.add_argument("schema", metavar="SUBJECT|ID", help="a subject (its newest version), or a schema id")
    commands.add_parser("register", help="register the declared topics' contracts; safe to repeat")
    return parser
