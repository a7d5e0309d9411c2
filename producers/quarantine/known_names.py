"""Refuses topics, error codes and rules that neither the quarantine nor the declarations know: mistyped, most often."""

from collections.abc import Callable, Iterable

from conf.errors import TidemarkError, nearest
from conf.rules import load_rules
from conf.settings import Settings
from conf.topics import load_topics
from jobs.connectors.delta.log import tables_under
from producers.quarantine.selection import Selection
from producers.quarantine.table import INGESTED, Quarantine


def require_known(table: Quarantine, settings: Settings, selected: Selection) -> None:
    """Refuse a selection by a name that no record can have.

    Raises:
        TidemarkError: UNKNOWN_TOPIC, or BAD_ARGUMENTS for an error code or a rule, with the nearest name;
            NO_SUCH_COLUMN.
    """
    topics = {*selected.topics, *([selected.record.topic] if selected.record else [])}
    _require("topic", topics, table, lambda: _topics(settings), "UNKNOWN_TOPIC")
    _require("error", selected.errors, table, _codes, "BAD_ARGUMENTS")
    _require("rule", selected.rules, table, lambda: _rules(settings), "BAD_ARGUMENTS")


def _require(column: str, names: Iterable[str], table: Quarantine, declared: Callable[[], set[str]], code: str) -> None:
    unknown = set(names)
    if not unknown:
        return
    known = table.values(column)
    if unknown := unknown - known:
        known |= declared()
    for name in sorted(unknown - known):
        what = f"no record in quarantine has the {column} `{name}`, and nothing declares it"
        raise TidemarkError(code, what, nearest(name, sorted(known)))


def _topics(settings: Settings) -> set[str]:
    ingested = (name.partition("/")[2] for name in tables_under(settings.paths.tables) if name.startswith(INGESTED))
    return {*settings.ingest.topics, *load_topics(), *(name.partition("/")[0] for name in ingested)}


def _codes() -> set[str]:
    from jobs.ingest.quarantine import REASONS  # here: they load Spark's own package
    from jobs.pipeline.validation import REJECT_CODES

    return {*REJECT_CODES, *REASONS}


def _rules(settings: Settings) -> set[str]:
    declared = load_rules({*settings.ingest.topics, *load_topics()})
    return {rule.name for rules in declared.values() for rule in rules}
