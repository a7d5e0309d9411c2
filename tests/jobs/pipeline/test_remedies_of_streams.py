"""A record that Spark cannot read at all: its coordinates are told, and the way on loses no other record."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from conf.errors import TidemarkError
from local.broker import Cluster
from tests.jobs.scratch import Scratch
from tests.sent import T0, Record

EDIT = re.compile(
    r"write (\d+) in place of (\d+) for partition (\d+) of \S+ into (\S+), and remove ([^;]+) there, then"
)


def follow(remedy: str, checkpoint: Path) -> None:
    """Edit the checkpoint as the remedy says."""
    found = EDIT.search(remedy)
    assert found, remedy
    new, old, partition, file, removed = found.groups()
    place = Path(file)
    text = place.read_text(errors="surrogateescape")
    entry = f'"{partition}":{old}'
    assert entry in text, (entry, text)
    place.write_text(text.replace(entry, f'"{partition}":{new}'), errors="surrogateescape")
    for name in re.findall(r"\S+/\.?\d+(?:\.crc)?", removed):
        (checkpoint / name).unlink(missing_ok=name.endswith(".crc"))


@pytest.mark.slow
def test_a_record_of_the_year_43_million_is_told_and_all_others_are_read(scratch: Scratch, broker: Cluster) -> None:
    topic = scratch.topic(2)
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
    ahead = ConfigEntry("message.timestamp.after.max.ms", str(2**63 - 1), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[ahead])
    admin.incremental_alter_configs([resource])[resource].result()

    def in_nanoseconds(partition: int) -> Record:
        return replace(scratch.reading(topic, "bad", 0, partition), timestamp=T0 * 1_000_000)

    scratch.send(topic, scratch.reading(topic, "a", 1), in_nanoseconds(0), scratch.reading(topic, "b", 2))
    scratch.send(topic, in_nanoseconds(1), scratch.reading(topic, "c", 3, 1))

    told = set()
    for _ in range(5):  # a batch is cut before a record, and the next one begins behind it: two stops for each, at most
        try:
            scratch.ingest(topic)
            break
        except TidemarkError as stop:
            at = re.search(rf"TIMESTAMP_OUT_OF_RANGE: {topic} partition (\d) offset (\d)", str(stop))
            assert at, stop
            told.add((int(at[1]), int(at[2])))
            follow(stop.remedy, scratch.folder / "checkpoints" / "ingest" / topic)

    assert told == {(0, 1), (1, 0)}
    assert scratch.rows(f"silver/{topic}", "id", "level") == [("a", 1), ("b", 2), ("c", 3)]
