"""Avro record schemas out of the names and types that inference found."""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from producers.rows import unique_names
from schemas.validity import NAME


@dataclass(frozen=True)
class Field:
    """`source`: its name in the input; `avro_type`: its type, without null."""

    source: str
    avro_type: Any


def record(name: str, fields: Iterable[Field], **attributes: str) -> dict[str, Any]:
    """A record of nullable fields; a name that Avro does not allow is changed, and kept as the field's `source`."""
    listed = list(fields)
    names = _field_names([field.source for field in listed])
    return {
        "type": "record",
        "name": name,
        **attributes,
        "fields": [_described(each, names[each.source]) for each in listed],
    }


def avro_name(source: str) -> str:
    """The name itself where Avro allows it; otherwise the nearest that it allows: `Unit price ($)` -> Unit_price."""
    if NAME.fullmatch(source):
        return source
    plain = unicodedata.normalize("NFKD", source).encode("ascii", "ignore").decode()
    bare = re.sub(r"[^A-Za-z0-9]+", "_", plain).strip("_")
    return bare if NAME.fullmatch(bare) else f"_{bare}" if bare else "column"


def type_name(topic: str) -> str:
    """A record's name after a topic: page-views -> PageViews."""
    words = re.findall(r"[A-Za-z0-9]+", topic)
    return avro_name("".join(word[:1].upper() + word[1:] for word in words))


def renamed(schema: Any) -> list[tuple[str, str]]:
    """(source, name) of every field, at every depth, whose name was changed."""
    if isinstance(schema, list):
        return [pair for branch in schema for pair in renamed(branch)]
    if not isinstance(schema, dict):
        return []
    pairs = [(field["source"], field["name"]) for field in schema.get("fields", ()) if "source" in field]
    for child in (*(field["type"] for field in schema.get("fields", ())), schema.get("items"), schema.get("values")):
        pairs += renamed(child)
    return pairs


def _field_names(sources: list[str]) -> dict[str, str]:
    """Source -> name. Names differ by more than case, which is all the same to Spark; proper names are kept first."""
    ordered = sorted(sources, key=lambda source: avro_name(source) != source)
    unique = unique_names([avro_name(source) for source in ordered], fold=str.lower)
    return dict(zip(ordered, unique, strict=True))


def _described(field: Field, name: str) -> dict[str, Any]:
    source = {"source": field.source} if name != field.source else {}
    doc = f"Inferred from `{field.source}`; say here what it means, and in which unit."
    return {"name": name, **source, "type": ["null", field.avro_type], "default": None, "doc": doc}
