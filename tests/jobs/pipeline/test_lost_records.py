"""What a query publishes stays once in its topic where records were lost to it, and it goes on as its stop says."""

import shutil
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from pyspark.sql import functions as F

from conf.errors import TidemarkError
from jobs.pipeline.run import Run
from tests.faults.oracle import read_all
from tests.jobs.pipeline.test_guards import recreate
from tests.jobs.scratch import Scratch
from tests.kinds import of_a_kind

WAY_OUT = r"--until-caught-up --skip-lost"


def declared(scratch: Scratch, source: str, target: str, kept: str, skips_lost: bool = False) -> Run:
    """A run that publishes the levels of `source`; `kept`: what the job has beside the topic."""
    run = scratch.run(f"ledger.small_batch_records={0 if kept == 'shards' else 5000}")
    run.skips_lost = skips_lost
    readings = run.read(source)
    if kept == "state":
        readings = readings.dropDuplicates(["level"])
    if kept == "table":
        run.write_and_publish(
            readings, f"of-{target}", target, lambda rows: rows.select(F.col("level").cast("string").alias("value"))
        )
        return run
    run.publish(readings.select(F.col("level").cast("string").alias("value")), target)
    return run


def send(scratch: Scratch, topic: str, *levels: int) -> None:
    scratch.send(topic, *(scratch.reading(topic, f"r{level}", level) for level in levels))


def published(scratch: Scratch, topic: str) -> list[int]:
    records, stuck = read_all(scratch.settings().kafka.bootstrap_servers, topic, committed=True)
    assert not stuck
    return sorted(int(value) for _, value, _ in records)


def stop_and_follow_the_way_out(scratch: Scratch, source: str, target: str, kept: str, code: str) -> None:
    """Without state or tables, the checkpoint is lost as well, and adopted before."""
    with pytest.raises(TidemarkError, match=rf"{code}.*{WAY_OUT}"):
        scratch.catch_up(declared(scratch, source, target, kept))
    if kept in ("shards", "nothing"):
        shutil.rmtree(scratch.folder / "checkpoints")
        declared(scratch, source, target, kept).adopt()
    scratch.catch_up(declared(scratch, source, target, kept, skips_lost=True))


@pytest.mark.slow
@pytest.mark.parametrize("kept", of_a_kind(["shards", "nothing", "state", "table"], ["shards"]))
def test_a_job_that_publishes_goes_on_behind_what_retention_took_with_or_without_its_checkpoint(
    kept: str, scratch: Scratch, capsys: Any
) -> None:
    source, target = scratch.topic(), scratch.topic()
    send(scratch, source, 0, 1, 2)
    scratch.catch_up(declared(scratch, source, target, kept))
    send(scratch, source, 3, 4, 5)
    scratch.delete_records(source, {0: 5})
    stop_and_follow_the_way_out(scratch, source, target, kept, "DATA_LOST")

    assert published(scratch, target) == [0, 1, 2, 5]
    assert f"{source} partition 0: offsets 3 to 4 are gone" in capsys.readouterr().err
    send(scratch, source, 6)
    scratch.catch_up(declared(scratch, source, target, kept))
    assert published(scratch, target) == [0, 1, 2, 5, 6]


@pytest.mark.slow
@pytest.mark.parametrize("kept", of_a_kind(["shards", "nothing", "state", "table"], ["state"]))
def test_a_job_that_publishes_goes_on_with_a_topic_that_was_created_again(
    kept: str, scratch: Scratch, capsys: Any
) -> None:
    admin = AdminClient({**scratch.settings().kafka.client_config(), "log_level": 0})
    source, target = scratch.topic(), scratch.topic()
    send(scratch, source, 0, 1, 2)
    scratch.catch_up(declared(scratch, source, target, kept))
    recreate(admin, source)
    send(scratch, source, 3, 4, 5, 6)
    stop_and_follow_the_way_out(scratch, source, target, kept, "TOPIC_RECREATED")

    assert published(scratch, target) == [0, 1, 2, 3, 4, 5, 6]
    assert f"topic {source} was created again" in capsys.readouterr().err
    send(scratch, source, 7)
    scratch.catch_up(declared(scratch, source, target, kept))
    assert published(scratch, target) == [0, 1, 2, 3, 4, 5, 6, 7]
