"""Holds the registered versions of a topic's schemas for one micro-batch; says which of them a complaint is about."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

from pyspark.sql import Column
from pyspark.sql import functions as F

from conf.errors import TidemarkError
from jobs.connectors.avro import decode
from schemas.registry import RegisteredSchema
from schemas.validity import is_valid

NOT_AVRO = "NOT_AVRO"


class Versions(dict[str, Sequence[RegisteredSchema]]):
    """The registered versions of each stream of a topic that are Avro, the newest last.

    Args:
        not_avro: the ids of those that are not.
        of_keys: the versions of a compacted topic's record keys; none where no schema is registered for these.
    """

    def __init__(
        self,
        of_streams: Mapping[str, Sequence[RegisteredSchema]],
        not_avro: Collection[int] = (),
        of_keys: Sequence[RegisteredSchema] = (),
    ) -> None:
        super().__init__(of_streams)
        self.not_avro, self.of_keys = frozenset(not_avro), tuple(of_keys)


@contextmanager
def naming_schema(stream: str, versions: Versions) -> Iterator[None]:
    """Turn complaints about a schema into BAD_SCHEMA, with topic, subject and version."""
    try:
        yield
    except TidemarkError as exc:
        if exc.code not in ("INVALID_SCHEMA", "BAD_SCHEMA"):
            raise
        registered = versions[stream]
        bad = next((version for version in registered if not is_valid(version.text)), registered[-1])
        topic = stream.partition("/")[0]
        place = f"topic {topic}, subject {bad.subject}, version {bad.version} (schema id {bad.id})"
        what, remedy = bad.problem or (exc.message, exc.remedy)
        raise TidemarkError("BAD_SCHEMA", f"{place}: {what}", remedy) from exc


def naming_other_types(not_avro: Collection[int]) -> Column:
    """Return the column `error` of `avro.decode`, NOT_AVRO where a record names one of these ids."""
    is_other = F.col("error").eqNullSafe(decode.UNKNOWN_SCHEMA_ID) & F.col("schema_id").isin(*not_avro)
    return F.when(is_other, NOT_AVRO).otherwise(F.col("error"))
