"""What a query reads and writes, kept in its checkpoint: for those who ask without running its job, or any JVM."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, Self

from pyspark.sql import SparkSession

from conf import code
from jobs import checkpoint
from jobs.outputs import Output, Replaceable
from jobs.plans import sources
from jobs.reach import Reach, reach

FILE = "tidemark/query.json"  # in the checkpoint


@dataclass(frozen=True)
class Manifest:
    """Of one query.

    Args:
        topics: that it reads, in the order of its plan.
        topic: that it publishes to; None for none.
        code: the version that wrote this.
    """

    job: str
    query: str
    name: str
    mode: str
    topics: tuple[str, ...]
    tables: tuple[Replaceable, ...]
    topic: str | None
    reach: Reach
    code: str

    @classmethod
    def of(cls, output: Output) -> Self:
        """Of a declared output, whose frame is a stream."""
        declared = output.job, output.query, output.name, output.mode
        topics = tuple(dict.fromkeys(each.topic for each in sources(output.frame) if each.topic))
        return cls(*declared, topics, output.tables, output.topic, reach(output.frame), code.version())

    def to_json(self) -> str:
        """One line of text; durations in seconds."""
        fields = asdict(self) | {"reach": {name: at.total_seconds() for name, at in asdict(self.reach).items()}}
        return json.dumps(fields)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Of what `to_json` gave."""
        fields: Mapping[str, Any] = json.loads(text)
        tables = tuple(map(Replaceable.from_fields, fields["tables"]))
        spans = Reach(**{name: timedelta(seconds=at) for name, at in fields["reach"].items()})
        return cls(**{**fields, "topics": tuple(fields["topics"]), "tables": tables, "reach": spans})


def remember(spark: SparkSession, folder: str, output: Output) -> None:
    """Write the manifest of `output` into its checkpoint, where it is not there or was another."""
    text = Manifest.of(output).to_json()
    if checkpoint.read(spark, f"{folder}/{FILE}") != text:
        checkpoint.write(spark, f"{folder}/{FILE}", text)
