"""What a checkpoint says of a micro-batch, in the files that Spark writes and through real queries."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession

from conf.errors import TidemarkError
from jobs.pipeline import checkpoint_format
from jobs.pipeline.checkpoint import (
    FILE_MANAGER,
    LOCAL_FILE_MANAGER,
    choose_file_manager,
    damage,
    entry,
    move_aside,
    opening,
    positions,
    query_id,
    read,
    remove,
)
from jobs.pipeline.checkpoint_format import initial_offsets, late_watermark_ms
from tests.jobs.scratch import Scratch

TWO = 'v1\n{"batchWatermarkMs":0}\n{"a":{"0":2}}\n{"b":{"0":2}}\n'
HEADER = 'v1\n{"batchWatermarkMs":0}\n'
Files = Callable[..., str]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Makes a checkpoint folder of texts by path."""

    def make(**texts: str) -> str:
        for path, text in texts.items():
            file = tmp_path / path.replace("__", "/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        return str(tmp_path)

    return make


def batch_offsets(spark: SparkSession, checkpoint: str, batch: int) -> dict[str, Any]:
    return checkpoint_format.batch_offsets(opening(spark, checkpoint, batch), batch)


def test_an_entry_is_the_files_text_and_none_where_there_is_no_file(spark: SparkSession, files: Files) -> None:
    text = f'{HEADER}{{"topic":{{"0":2}}}}\n'
    checkpoint = files(offsets__7=text)
    assert entry(spark, checkpoint, 7) == text
    assert entry(spark, checkpoint, 8) is None


def test_a_batch_goes_from_where_the_one_before_ended(spark: SparkSession, files: Files) -> None:
    checkpoint = files(
        offsets__4=f'{HEADER}{{"a":{{"0":2}}}}\n17', offsets__5=f'{HEADER}{{"a":{{"0":9}}}}\n23', sources__0__0="unread"
    )
    expected = {"from": [{"a": {"0": 2}}, "17"], "until": [{"a": {"0": 9}}, "23"], "since": [None, None]}
    assert batch_offsets(spark, checkpoint, 5) == expected


def test_a_source_goes_on_behind_the_last_batch_that_is_done_or_where_it_began(
    spark: SparkSession, files: Files
) -> None:
    began = '\0v1\n{"a":{"0":2}}'
    checkpoint = files(sources__0__0=began, sources__1__0=began, offsets__0=f'{HEADER}{{"a":{{"0":9}}}}\n-')
    assert positions(spark, checkpoint) == [{"a": {"0": 2}}] * 2
    files(commits__0="v1\n{}")
    assert positions(spark, checkpoint) == [{"a": {"0": 9}}, {"a": {"0": 2}}]
    assert positions(spark, f"{checkpoint}/none") == []


def test_what_spark_no_longer_keeps_is_null(spark: SparkSession, files: Files) -> None:
    checkpoint = files(offsets__5=f'{HEADER}{{"a":{{"0":9}}}}', sources__0__0='v1\n{"a":{"0":0}}')
    assert batch_offsets(spark, checkpoint, 5) == {
        "from": None,
        "until": [{"a": {"0": 9}}],
        "since": [{"a": {"0": 0}}],
    }
    assert batch_offsets(spark, checkpoint, 4) == {"from": None, "until": None, "since": None}


def test_rows_are_late_by_the_watermark_of_the_batch_before() -> None:
    entries = {f"offsets/{batch}": f'v1\n{{"batchWatermarkMs":{batch}000}}\n17' for batch in (3, 4)}
    assert [late_watermark_ms(entries, batch) for batch in (0, 3, 4, 5)] == [0, None, 3000, 4000]


@pytest.mark.parametrize("start", ["\0", ""])
def test_a_first_batch_goes_from_where_each_kafka_source_began(start: str, spark: SparkSession, files: Files) -> None:
    checkpoint = files(
        offsets__0=f'{HEADER}{{"a":{{"0":9}}}}\n23\n{{"b":{{"1":4}}}}',
        sources__0__0=f'{start}v1\n{{"a":{{"0":3}}}}',
        sources__2__0=f'{start}v1\n{{"b":{{"1":0}}}}\n',
    )
    assert batch_offsets(spark, checkpoint, 0)["from"] == [{"a": {"0": 3}}, None, {"b": {"1": 0}}]


def test_a_source_that_had_not_begun_before_goes_from_where_it_begins(spark: SparkSession, files: Files) -> None:
    checkpoint = files(
        offsets__0=f'{HEADER}{{"a":{{"0":9}}}}\n-',
        offsets__1=f'{HEADER}{{"a":{{"0":9}}}}\n{{"b":{{"0":5}}}}',
        sources__1__0='\0v1\n{"b":{"0":2}}',
    )
    assert batch_offsets(spark, checkpoint, 0)["until"] == [{"a": {"0": 9}}, None]
    assert batch_offsets(spark, checkpoint, 1)["from"] == [{"a": {"0": 9}}, {"b": {"0": 2}}]


@pytest.mark.parametrize(
    "text", ["", "v1", "v1\n1700000000000", 'v1\n{"path":"x","batchId":0}', 'v1\n{"path":"x"}\n{"path":"y"}']
)
def test_a_file_of_another_source_holds_no_initial_offsets(text: str, spark: SparkSession, files: Files) -> None:
    assert initial_offsets(read(spark, f"{files(sources__0__0=text)}/sources/0/0")) is None


def test_where_kafka_sources_began_is_read_once_and_told_in_every_batch(spark: SparkSession, files: Files) -> None:
    checkpoint = files(
        offsets__4=f'{HEADER}{{"a":{{"0":2}}}}\n17',
        offsets__5=f'{HEADER}{{"a":{{"0":9}}}}\n23',
        sources__0__0='v1\n{"a":{"0":1}}',
        sources__1__0="v1\n17",
    )
    begun: dict[str, str] = {}
    assert checkpoint_format.batch_offsets(opening(spark, checkpoint, 5, begun), 5)["since"] == [
        {"a": {"0": 1}},
        None,
    ]
    assert begun.keys() == {"sources/0/0"}
    (Path(checkpoint) / "sources" / "0" / "0").unlink()
    assert opening(spark, checkpoint, 5, begun).keys() == {"offsets/4", "offsets/5", "sources/0/0"}


def seen_by(frame: DataFrame, checkpoint: str) -> list[dict[str, Any]]:
    """`batch_offsets` of every micro-batch of a stream, asked for while the batch runs."""
    seen: list[dict[str, Any]] = []
    writer = frame.writeStream.option("checkpointLocation", checkpoint).trigger(availableNow=True)
    query = writer.foreachBatch(
        lambda rows, number: seen.append(batch_offsets(rows.sparkSession, checkpoint, number))
    ).start()
    query.awaitTermination()
    return seen


def test_of_a_real_topic_no_batch_lacks_an_edge(scratch: Scratch) -> None:
    topic = scratch.topic(2)
    scratch.send(topic, *(scratch.reading(topic, "a", n, partition=n % 2) for n in range(6)))
    run = scratch.run("source.max_offsets_per_trigger=4", "source.starting_offsets=earliest")
    first, *_, last = seen = seen_by(run.records(topic), str(scratch.folder / "checkpoint"))
    assert first["from"] == [{topic: {"0": 0, "1": 0}}]
    assert last["until"] == [{topic: {"0": 3, "1": 3}}]
    assert [offsets["from"] for offsets in seen[1:]] == [offsets["until"] for offsets in seen[:-1]]
    assert [offsets["since"] for offsets in seen] == [first["from"]] * len(seen)
    assert len(seen) >= 2


def test_of_real_files_nobody_knows_where_they_began(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        (tmp_path / "in" / f"{name}.json").write_text(json.dumps({"n": name}))
    frame = spark.readStream.schema("n string").option("maxFilesPerTrigger", 1).json(str(tmp_path / "in"))
    first, second = seen_by(frame, str(tmp_path / "checkpoint"))
    assert first == {"from": [None], "until": [{"logOffset": 0}], "since": [None]}
    assert second == {"from": [{"logOffset": 0}], "until": [{"logOffset": 1}], "since": [None]}


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("metadata", "{}"),
        ("metadata", "null"),
        ("offsets__8", HEADER),
        ("offsets__8", f'{HEADER}{{"a":{{"0":4}}}}\n'),
        ("commits__7", "v1"),
    ],
)
def test_a_file_that_is_cut_at_the_end_of_a_line_or_lacks_what_it_is_for_is_damaged(
    path: str, text: str, spark: SparkSession, files: Files
) -> None:
    whole = {"metadata": '{"id":"x"}', "commits__7": "v1\n{}", **dict.fromkeys(("offsets__7", "offsets__8"), TWO)}
    assert damage(spark, files(**whole)) is None
    checkpoint = files(**whole | {path: text})
    assert damage(spark, checkpoint) == (path.replace("__", "/"), "is empty or cut short")
    assert (query_id(spark, checkpoint) is None) == (path == "metadata")


def test_what_stands_in_the_place_of_a_file_is_named(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "metadata").mkdir()
    with pytest.raises(TidemarkError, match=r"FILE_UNREADABLE: \S+/metadata cannot be opened: .*; see that"):
        damage(spark, str(tmp_path))


@pytest.mark.parametrize(
    ("folder", "chosen"), [("/data/x", True), ("file:/data/x", True), ("s3a://data/x", False), ("hdfs://data/x", False)]
)
def test_only_a_local_checkpoint_is_written_without_what_asks_for_links(
    folder: str, chosen: bool, spark: SparkSession
) -> None:
    session = spark.newSession()
    session.conf.unset(FILE_MANAGER)
    choose_file_manager(session, folder)
    assert session.conf.get(FILE_MANAGER, None) == (LOCAL_FILE_MANAGER if chosen else None)


def test_a_checkpoint_that_cannot_be_moved_aside_stops_by_name_and_stays(spark: SparkSession, tmp_path: Path) -> None:
    longest = tmp_path / ("x" * 250)  # there is no room in a name for ~replaced-1
    longest.mkdir()
    (longest / "metadata").write_text('{"id":"x"}')
    with pytest.raises(
        TidemarkError, match=r"FILE_NOT_CHANGED: \S+ cannot be renamed to \S+~replaced-1.*; let this user"
    ):
        move_aside(spark, str(longest))
    assert query_id(spark, str(longest)) == "x"


def test_a_checkpoint_is_moved_aside_once_and_again(spark: SparkSession, tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / "here").mkdir()
        assert str(move_aside(spark, str(tmp_path / "here"))).endswith(f"/here~replaced-{number}")
    assert move_aside(spark, str(tmp_path / "here")) is None


def test_what_cannot_be_removed_stops_by_name(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(TidemarkError, match=r"FILE_NOT_CHANGED: \S*/proc/version cannot be removed"):
        remove(spark, "file:/proc/version")
    remove(spark, str(tmp_path / "none"))
