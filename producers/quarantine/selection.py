"""Which rejected records: by topic, partition, offsets, error code, rule and time, as a condition on the table."""

from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from operator import and_
from typing import Any

import pyarrow.compute as pc
from pyarrow import Schema

from conf.errors import TidemarkError
from producers.quarantine.records import Coordinates


@dataclass(frozen=True)
class Selection:
    """What is wanted; an empty field wants all. Offsets and times: the first is taken in, the last is left out."""

    topics: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    partition: int | None = None
    first_offset: int | None = None
    end_offset: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    record: Coordinates | None = None

    @property
    def is_everything(self) -> bool:
        """Whether nothing was asked for."""
        return self == Selection()

    def condition(self, schema: Schema) -> Any:
        """A pyarrow expression over the table's columns; None for all rows.

        Raises:
            TidemarkError: NO_SUCH_COLUMN, where an older table cannot answer.
        """
        terms: list[Any] = []
        for column, wanted in (("topic", self.topics), ("error", self.errors), ("rule", self.rules)):
            if wanted:
                terms.append(_column(schema, column).isin(wanted))
        if self.partition is not None:
            terms.append(_column(schema, "partition") == self.partition)
        if self.record:
            terms += [_column(schema, name) == value for name, value in self.record._asdict().items()]
        for column, first, end in (
            ("offset", self.first_offset, self.end_offset),
            ("quarantined_at", self.since, self.until),
        ):
            if first is not None:
                terms.append(_column(schema, column) >= first)
            if end is not None:
                terms.append(_column(schema, column) < end)
        return reduce(and_, terms) if terms else None

    def within(self, schema: Schema, topic: str, partition: int, first: int, last: int) -> Any:
        """The condition of those that lie between two offsets of one partition, both taken in."""
        offset = pc.field("offset")
        here = (pc.field("topic") == topic) & (pc.field("partition") == partition)
        here = here & (offset >= first) & (offset <= last)
        own = self.condition(schema)
        return here if own is None else own & here


def _column(schema: Schema, name: str) -> Any:
    if name not in schema.names:
        what = f"the table quarantine has no column {name}: it was written by an older version"
        raise TidemarkError("NO_SUCH_COLUMN", what, "select by topic, offsets or error, or run ingest once more")
    return pc.field(name)
