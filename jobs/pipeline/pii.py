"""Personal data leaves an event before any table or output topic has it: hashed, masked or dropped.

A hash is HMAC-SHA-256 (RFC 2104) of the value's text in UTF-8, in hexadecimal. Spark has SHA-2; an HMAC also needs two
blocks made from the key. Literals are visible in query plans, so the blocks are joined in from a one-row DataFrame.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DataType, MapType, StructField, StructType

from conf.errors import TidemarkError
from conf.settings import PersonalData
from schemas.pii_marks import PiiFields, Treatment, pii_fields_of

BLOCK_BYTES = 64
INNER, OUTER = 0x36, 0x5C
# Unicode's categories, in Java's spelling: capitals and title case; digits and other numbers of all scripts.
UPPER, NUMBER = r"\p{Lu}\p{Lt}", r"\p{N}"
PADS = "tidemark_inner binary, tidemark_outer binary"
KEY_BYTES = 16  # NIST SP 800-107: a key under 112 bits is too easily guessed


def protection(spark: SparkSession, stream: str, schema: str, key: str | None, settings: PersonalData) -> "Protection":
    """Make the treatment of the events of `stream`, whose newest schema is the text `schema`; `key`: the field that
    keys its records, where its topic is compacted. Raises TidemarkError BAD_SCHEMA or NO_HASH_KEY."""
    marks = pii_fields_of(schema)
    mark = marks.fields.get(key) if key is not None else None
    if mark in ("mask", "drop"):
        what = f"`{key}` is the key of {stream}, which is compacted, and is marked pii = {mark}"
        raise TidemarkError("BAD_SCHEMA", what, "hash it: equal keys then still are equal")
    is_hashing = "hash" in marks.treatments()
    return Protection(marks, hash_key(spark, settings.hash_key.get_secret_value()) if is_hashing else None)


def hash_key(spark: SparkSession, key: str) -> DataFrame:
    """Return one row that `Protection` hashes with: `tidemark_inner` binary, `tidemark_outer` binary; raises
    TidemarkError NO_HASH_KEY, where the key is missing or too short to keep anything secret."""
    secret = key.encode()
    if len(secret) < KEY_BYTES:
        what = f"fields are marked pii = hash, and the key has {len(secret)} bytes, fewer than {KEY_BYTES}"
        raise TidemarkError("NO_HASH_KEY", what, "set TIDEMARK_PERSONAL_DATA__HASH_KEY to a long random text")
    block = (hashlib.sha256(secret).digest() if len(secret) > BLOCK_BYTES else secret).ljust(BLOCK_BYTES, b"\0")
    inner, outer = (bytearray(byte ^ pad for byte in block) for pad in (INNER, OUTER))
    return spark.createDataFrame([(inner, outer)], PADS)


@dataclass(frozen=True)
class Protection:
    """The marks of a stream's events, and what hashes them."""

    marks: PiiFields
    hash_key: DataFrame | None = None

    def __call__(self, events: DataFrame) -> DataFrame:
        """Return `events`, columns, with the marked ones treated: hashed (string), masked (string), or not there."""
        if not self.marks:
            return events
        joined = events if self.hash_key is None else events.join(F.broadcast(self.hash_key))
        columns = [column for column in events.schema.fields if self.marks.fields.get(column.name) != "drop"]
        treated = [_treated(F.col(f"`{column.name}`"), column, self.marks).alias(column.name) for column in columns]
        return joined.select(*treated)

    def accepted_events(self, validated: DataFrame, *beside: Column) -> DataFrame:
        """Return the events of the records without an error (`Validator.validate`), treated, and columns `beside`."""
        return self(validated.where(F.col("error").isNull()).select("event.*", *beside))

    def of_field(self, frame: DataFrame, column: str, field: str) -> DataFrame:
        """Return `frame` with its `column` treated as the events' `field` is."""
        mark = self.marks.fields.get(field)
        return Protection(PiiFields({column: mark}), self.hash_key)(frame) if mark else frame


def _treated(value: Column, declared: StructField, marks: PiiFields) -> Column:
    mark = marks.fields.get(declared.name)
    return value if mark is None else _within(value, declared.dataType, mark)


def _within(value: Column, kind: DataType, mark: Treatment | PiiFields) -> Column:
    """Return `value` treated, or the marked fields of the records in it; a list's items and a map's values each."""
    if isinstance(kind, ArrayType):
        return F.transform(value, lambda item: _within(item, kind.elementType, mark))
    if isinstance(kind, MapType):
        return F.transform_values(value, lambda _, item: _within(item, kind.valueType, mark))
    if not isinstance(mark, PiiFields):
        return TREATMENTS[mark](value)
    if not isinstance(kind, StructType):
        raise TypeError(f"marks within {kind.simpleString()}")
    kept = [field for field in kind.fields if mark.fields.get(field.name) != "drop"]
    fields = [_treated(value.getField(field.name), field, mark).alias(field.name) for field in kept]
    return F.when(value.isNotNull(), F.struct(*fields))


def _hashed(value: Column) -> Column:
    message = value.cast("string").cast("binary")
    inner = F.unhex(F.sha2(F.concat(F.col("tidemark_inner"), message), 256))
    return F.sha2(F.concat(F.col("tidemark_outer"), inner), 256)


def _masked(value: Column) -> Column:
    """Return every character but white space and punctuation as one of three letters; as many characters as before.

    Spark's own `mask` knows letters with case and digits alone, and leaves every other script in clear.
    """
    hidden = F.regexp_replace(value, rf"[^\s\p{{Z}}\p{{P}}{UPPER}{NUMBER}]", "x")
    return F.regexp_replace(F.regexp_replace(hidden, f"[{UPPER}]", "X"), f"[{NUMBER}]", "n")


TREATMENTS: dict[Treatment, Callable[[Column], Column]] = {"hash": _hashed, "mask": _masked}
