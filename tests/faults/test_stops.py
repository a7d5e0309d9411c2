"""What a run cannot go on after: it stops with a name, in one line, and after the remedy each record is there once."""

import json
import shutil
from pathlib import Path

import pytest
from confluent_kafka import IsolationLevel, TopicPartition
from confluent_kafka.admin import NewPartitions, OffsetSpec

from local.processes import wait_for
from tests.faults.conftest import SceneOf
from tests.faults.host import SECONDS
from tests.faults.oracle import fill
from tests.faults.scene import Scene, assert_clean, start_together

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

BATCH = "source.max_offsets_per_trigger=300"


def done(scene: SceneOf, count: int = 600, **how: object) -> Scene:
    """A scene whose query has caught up with `count` records, in batches of 300."""
    crime = scene(settings=[BATCH], **how)
    crime.fill(count)
    crime.finish()
    return crime


def taken_back(scene: SceneOf, behind: int) -> Scene:
    """A scene whose checkpoint is a copy from `behind` records ago, with 300 more to be read."""
    crime = done(scene)
    shutil.copytree(crime.checkpoint, crime.folder / "older")
    crime.fill(behind)
    crime.finish()
    shutil.rmtree(crime.checkpoint)
    shutil.copytree(crime.folder / "older", crime.checkpoint)
    crime.fill(300)
    return crime


def cut_short(scene: SceneOf, **how: object) -> Scene:
    """A scene of 900 records whose driver was killed in batch 1, after shard 0 of it had been committed."""
    crime = scene(settings=[BATCH], **how)
    crime.fill(900)
    crime.arm("shard-after-commit", batch=1, shard=0)
    driver = crime.start()
    crime.held("shard-after-commit", driver)
    driver.kill()
    return crime


def kill_between_two_shards(crime: Scene) -> None:
    """Kill the driver in batch 1, after shard 0 of it has been committed and before shard 1 begins."""
    crime.arm("shard-after-commit", batch=1, shard=0)
    crime.arm("shard-before-fence", batch=1, shard=1)
    driver = crime.start()
    crime.held("shard-after-commit", driver)
    crime.held("shard-before-fence", driver)
    driver.kill()


def write(file: Path, content: bytes, checksum: bool = False) -> None:
    """Change a checkpoint's file behind Hadoop's back, which notices where the old `checksum` is left beside it."""
    file.write_bytes(content)
    if not checksum:
        (file.parent / f".{file.name}.crc").unlink(missing_ok=True)


def test_a_stop_is_one_line_and_exit_code_1(scene: SceneOf) -> None:
    crime = done(scene)
    shutil.rmtree(crime.checkpoint)

    driver = crime.start(alone=True)

    assert driver.wait() == 1
    ours = [line for line in driver.said.splitlines() if "CHECKPOINT_REPLACED" in line]
    assert len(ours) == 1, driver.said
    assert ours[0].startswith("error: ")
    assert "--adopt" in ours[0]


def test_a_deleted_checkpoint_stops_the_query_and_adopt_goes_on_where_the_ledger_ends(scene: SceneOf) -> None:
    crime = done(scene)
    shutil.rmtree(crime.checkpoint)
    crime.fill(300)

    assert "CHECKPOINT_REPLACED" in crime.stopped()

    crime.finish(adopt=True)
    assert_clean(crime)


def test_adopt_finishes_the_batch_that_was_cut_short_when_the_checkpoint_was_lost(scene: SceneOf) -> None:
    crime = cut_short(scene)
    shutil.rmtree(crime.checkpoint)

    assert "CHECKPOINT_REPLACED" in crime.stopped()

    crime.finish(adopt=True)
    assert_clean(crime)


def test_an_older_copy_of_the_checkpoint_stops_the_query_and_adopt_goes_on(scene: SceneOf) -> None:
    crime = taken_back(scene, behind=600)

    assert "CHECKPOINT_ROLLED_BACK" in crime.stopped()

    crime.finish(adopt=True)
    assert_clean(crime)


@pytest.mark.exhaustive
def test_a_checkpoint_older_by_one_batch_stops_the_query_and_adopt_goes_on(scene: SceneOf) -> None:
    crime = taken_back(scene, behind=300)

    assert "BATCH_CHANGED" in crime.stopped()

    crime.finish(adopt=True)
    assert_clean(crime)


@pytest.mark.exhaustive
def test_other_offsets_for_a_batch_cut_short_stop_the_query_and_adopt_goes_on(scene: SceneOf) -> None:
    crime = cut_short(scene)
    file = crime.checkpoint / "offsets" / "1"
    lines = file.read_text().splitlines()
    ends = json.loads(lines[-1])
    ends[crime.source] = {partition: offset - 7 for partition, offset in ends[crime.source].items()}
    write(file, "\n".join([*lines[:-1], json.dumps(ends)]).encode())

    assert "BATCH_CHANGED" in crime.stopped()

    crime.finish(adopt=True)
    assert_clean(crime)


CHANGES = [("stateless", "stamped"), pytest.param("shuffled", "stamped_shuffled", marks=pytest.mark.exhaustive)]


@pytest.mark.parametrize(("before", "after"), CHANGES)
@pytest.mark.parametrize("remedy", ["adopt", pytest.param("the code before", marks=pytest.mark.exhaustive)])
def test_code_that_changed_amid_a_batch_stops_the_query_and_each_remedy_goes_on(
    before: str, after: str, remedy: str, scene: SceneOf
) -> None:
    crime = cut_short(scene, query=before, label=f"{before}, {remedy}")

    assert "BATCH_CHANGED" in crime.stopped(query=after)

    if remedy == "adopt":
        said = crime.finish(adopt=True, query=after).said
        assert "what of it is published stays" in said
        assert ("a record whose key has changed" in said) == (before == "shuffled")
    else:
        crime.finish(query=before)
    crime.fill(300)
    crime.finish(query=after)
    assert_clean(crime)


@pytest.mark.exhaustive
def test_a_deleted_ledger_stops_the_query_and_adopt_begins_it_anew(scene: SceneOf) -> None:
    crime = done(scene)
    crime.remove(crime.ledger)
    crime.fill(300)

    assert "LEDGER_GAP" in crime.stopped()

    crime.finish(adopt=True)
    assert_clean(crime, marked=False)  # what the markers of the first batches counted is gone


@pytest.mark.exhaustive
def test_a_recreated_output_topic_stops_the_query_and_adopt_goes_on_with_the_new_one(scene: SceneOf) -> None:
    crime = done(scene)
    crime.remove(crime.target)
    crime.create(crime.target)
    crime.fill(300)

    assert "TOPIC_RECREATED" in crime.stopped()

    crime.finish(adopt=True)
    verdict = crime.verdict(marked=False)
    assert verdict.counters == {
        "lost": 600,  # with the topic that was deleted
        "duplicated": 0,
        "phantom": 0,
        "torn": 0,
        "out_of_order": 0,
        "stuck": 0,
    }


@pytest.mark.exhaustive
def test_a_transaction_timeout_above_the_brokers_cap_stops_the_job_before_it_writes(scene: SceneOf) -> None:
    crime = scene(settings=[BATCH])
    crime.fill(300)

    assert "TRANSACTION_TIMEOUT_ABOVE_CAP" in crime.stopped("ledger.transaction_timeout_ms=900001")

    assert crime.verdict(marked=False).rows == 0
    crime.finish()
    assert_clean(crime)


@pytest.mark.exhaustive
def test_a_shard_that_takes_longer_than_its_transaction_may_stops_the_query_and_the_next_run_finishes(
    scene: SceneOf,
) -> None:
    crime = scene(settings=[BATCH, "ledger.transaction_timeout_ms=4000"])
    crime.fill(600)
    crime.arm("shard-mid-produce", batch=1, shard=0)
    driver = crime.start()
    crime.held("shard-mid-produce", driver)
    # The transaction is open: its beginning holds up read_committed readers, until the brokers end it.
    wait_for(lambda: not holds_up(crime, 1), SECONDS, lambda: AssertionError("the transaction does not time out"))
    crime.release("shard-mid-produce")

    code = driver.wait()

    assert code == 1, "a transaction that the brokers had ended was committed"
    assert "TRANSACTION_TIMED_OUT" in driver.said
    crime.report(crime, driver.said.strip().splitlines()[-1])
    crime.finish()
    assert_clean(crime)


def holds_up(crime: Scene, partition: int) -> bool:
    """Whether a transaction is open in a partition of the ledger."""
    at = TopicPartition(crime.ledger, partition)
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    ends = [
        crime.admin.list_offsets({at: latest}, isolation_level=level)[at].result(SECONDS).offset
        for level in (IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED)
    ]
    return bool(ends[0] < ends[1])


def test_a_lost_checkpoint_with_state_cannot_be_adopted_and_goes_on_once_restored(scene: SceneOf) -> None:
    crime = done(scene, query="windowed")
    crime.checkpoint.rename(crime.folder / "lost")
    crime.fill(300)

    assert "CHECKPOINT_REPLACED" in crime.stopped()
    assert "ADOPT_NEEDS_STATE" in crime.stopped(adopt=True)

    shutil.rmtree(crime.checkpoint)
    (crime.folder / "lost").rename(crime.checkpoint)
    crime.finish()
    assert_clean(crime)


@pytest.mark.exhaustive
def test_a_plan_with_random_keys_is_refused_and_in_mode_outbox_survives_a_kill_between_two_shards(
    scene: SceneOf,
) -> None:
    crime = scene(settings=[BATCH], query="random_key")
    crime.fill(900)
    assert "NOT_DETERMINISTIC" in crime.stopped()
    assert crime.verdict(marked=False).rows == 0

    crime.mode = "outbox"
    kill_between_two_shards(crime)
    crime.finish()

    assert_clean(crime)


DAMAGES = {
    "offsets truncated": ("offsets/1", 0.5),
    "offsets zeroed": ("offsets/1", 0.0),
    "commits truncated": ("commits/0", 0.5),
    "commits zeroed": ("commits/0", 0.0),
    "offsets truncated, checksum there": ("offsets/1", 0.5),
    "commits truncated, checksum there": ("commits/0", 0.5),
}


@pytest.mark.exhaustive
def test_a_damaged_end_of_the_checkpoint_is_healed_or_stops_the_query_and_adopt_goes_on(scene: SceneOf) -> None:
    crimes = [scene(label=label, settings=[BATCH]) for label in DAMAGES]
    for crime in crimes:
        crime.fill(900)
        crime.arm("shard-after-commit", batch=1, shard=0)
    driver = start_together(crimes)
    for crime in crimes:
        crime.held("shard-after-commit", driver)
    driver.kill()

    for crime in crimes:
        name, kept = DAMAGES[crime.label]
        file = crime.checkpoint / name
        content = file.read_bytes()
        write(file, content[: int(len(content) * kept)], checksum="checksum" in crime.label)
        driver = crime.start()
        if driver.wait():
            crime.report(crime, driver.said.strip().splitlines()[-1])
            assert "CHECKPOINT_DAMAGED" in driver.said or "BATCH_CHANGED" in driver.said, driver.said[-3000:]
        crime.finish(adopt=True)
        assert_clean(crime)


@pytest.mark.exhaustive
def test_partitions_added_in_the_middle_of_a_batch_leave_each_record_once(scene: SceneOf) -> None:
    # A key whose partition is another one from now on is in no order across the two.
    crimes = [scene(query=query, label=query, settings=[BATCH], ordered=False) for query in ("stateless", "shuffled")]
    for crime in crimes:
        crime.fill(900)
        crime.arm("shard-mid-produce", batch=1)
    driver = start_together(crimes)
    for crime in crimes:
        crime.held("shard-mid-produce", driver)
        for topic in (crime.source, crime.target):
            crime.admin.create_partitions([NewPartitions(topic, 5)])[topic].result(SECONDS)
        fill(crime.servers, crime.source, range(900, 1500), range(5))
        crime.filled = 1500
    driver.kill()

    for crime in crimes:
        crime.finish()
        assert_clean(crime)


@pytest.mark.parametrize(
    "count", [pytest.param(300, id="shorter", marks=pytest.mark.exhaustive), pytest.param(1200, id="longer")]
)
def test_a_recreated_source_topic_stops_the_query_and_skip_lost_publishes_all_of_it(count: int, scene: SceneOf) -> None:
    crime = done(scene)
    crime.remove(crime.source)
    crime.create(crime.source)
    crime.fill(count)

    assert "--skip-lost" in crime.stopped()

    assert crime.verdict().rows == 600  # the old topic's
    crime.finish(skip_lost=True)
    assert_clean(crime, marked=False)  # the ledger was marked anew


@pytest.mark.exhaustive
def test_a_source_topic_recreated_between_two_batches_stops_the_query_before_a_record_of_it_is_published(
    scene: SceneOf,
) -> None:
    crime = scene(settings=[BATCH])
    crime.fill(900)
    crime.arm("batch-before-commit-log", batch=0)
    driver = crime.start()
    crime.held("batch-before-commit-log", driver)
    crime.remove(crime.source)
    crime.create(crime.source)
    fill(crime.servers, crime.source, range(10_000, 10_900), range(crime.partitions))
    crime.release("batch-before-commit-log")

    assert driver.wait() == 1, driver.said[-3000:]

    line = driver.said.strip().splitlines()[-1]
    crime.report(crime, line)
    assert "TOPIC_RECREATED" in line or "DATA_LOST" in line, line
    verdict = crime.verdict()
    assert (verdict.rows, verdict.phantom, verdict.duplicated) == (300, 0, 0)


def test_retention_that_passes_what_is_still_to_be_read_stops_the_query_and_skip_lost_goes_on_behind_it(
    scene: SceneOf,
) -> None:
    crime = done(scene)
    crime.fill(900)
    removed = [TopicPartition(crime.source, number, 300) for number in range(crime.partitions)]
    for future in crime.admin.delete_records(removed).values():
        future.result(SECONDS)

    line = crime.stopped()
    assert "DATA_LOST" in line and "--skip-lost" in line

    verdict = crime.verdict()
    assert (verdict.rows, verdict.phantom, verdict.duplicated) == (600, 0, 0)
    crime.finish(skip_lost=True)
    verdict = crime.verdict()
    lost = 300 * crime.partitions - 600
    assert (verdict.rows, verdict.phantom, verdict.duplicated) == (crime.filled - lost, 0, 0)


@pytest.mark.exhaustive
def test_skip_lost_finishes_a_batch_cut_short_between_two_shards_and_doubles_neither(scene: SceneOf) -> None:
    crime = scene(settings=[BATCH], partitions=2)
    crime.fill(900)
    kill_between_two_shards(crime)
    for future in crime.admin.delete_records(
        [TopicPartition(crime.source, number, 200) for number in range(2)]
    ).values():
        future.result(SECONDS)
    assert "DATA_LOST" in crime.stopped()

    crime.finish(skip_lost=True)

    verdict = crime.verdict()
    # Batch 1 is offsets 150 to 299 of each partition; its shard 0 was published whole.
    assert (verdict.rows, verdict.phantom, verdict.duplicated) == (crime.filled - 50, 0, 0)
