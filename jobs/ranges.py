"""Bounded ranges: which records of each topic a run takes, fixed when the topic is first read."""

import hashlib
import json
from collections.abc import Iterator

from pyspark.sql import Observation

from conf.settings import Kafka
from jobs.connectors.delta import RANGE
from jobs.connectors.positions import Offsets, Position, resolve
from jobs.progress import REJECTED


class Ranges:
    """From `start` to before `end` in every topic that is asked for; all readers of a topic get the same offsets."""

    def __init__(self, kafka: Kafka, start: Position, end: Position) -> None:
        self._kafka, self._bounds = kafka, (start, end)
        self._offsets: dict[str, tuple[Offsets, Offsets]] = {}
        self._rejects: dict[str, Observation] = {}

    def of(self, topic: str) -> tuple[Offsets, Offsets]:
        """The offsets where `topic` is read from, and before which it is read."""
        if topic not in self._offsets:
            start, end = (resolve(self._kafka, topic, position) for position in self._bounds)
            self._offsets[topic] = start, end
        return self._offsets[topic]

    @property
    def id(self) -> str:
        """Names the offsets of all topics so far: the same ones, the same name."""
        text = json.dumps(self._offsets, sort_keys=True)
        return f"{RANGE}{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    @property
    def offsets(self) -> dict[str, list[Offsets]]:
        """For a commit's metadata, as a micro-batch has them: `from`, and `until` (exclusive), an entry a topic."""
        edges = list(self._offsets.values())
        return {"from": [start for start, _ in edges], "until": [end for _, end in edges]}

    def observation(self, topic: str) -> Observation:
        """What counts the records of `topic` that are rejected, as a column REJECTED."""
        return self._rejects.setdefault(topic, Observation()) if topic not in self._rejects else Observation()

    def lines(self) -> Iterator[str]:
        """What was read, a line a topic."""
        for topic, (start, end) in self._offsets.items():
            offsets = sum(end[topic][partition] - first for partition, first in start[topic].items())
            yield f"{topic:<28} {offsets:,} offsets  {start[topic]} to {end[topic]}{self._rejected(topic)}"

    def _rejected(self, topic: str) -> str:
        observed = self._rejects.get(topic)
        # Where nothing was written anew nothing was counted, and asking would wait for ever.
        if observed is None or not observed._jo.future().isCompleted():  # type: ignore[union-attr]
            return ""
        # A merge into an empty table joins with nothing first, and Spark leaves out what would be counted there.
        if observed._jo.getRow().schema() is None:  # type: ignore[union-attr]
            return ""
        return f"  rejected {observed.get[REJECTED] or 0:,}"
