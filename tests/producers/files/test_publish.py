"""Any file into any topic, against a real broker: what fits arrives as it was, what does not is in the reject file."""

import datetime as dt
import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from confluent_kafka.admin import AdminClient

from conf.errors import TidemarkError
from conf.topics import Topic
from producers.files.publish import infer_only
from producers.files.rejects import RejectLimit, numbered
from producers.files.request import FileRequest, Parts
from producers.files.rows import NOT_UTF8
from producers.files.schema import find_schema
from schemas.registry import FileRegistry
from schemas.values import Reading
from tests.producers.desk import GOOD, HEADER, ORDER, ORDERS, Desk


def test_a_row_becomes_a_record_with_key_event_time_and_headers(desk: Desk) -> None:
    parts = Parts("id", "at", headers=[("source", "test")], header_fields=["price", "note"])
    report = desk.publish(desk.write("in.csv", HEADER + GOOD + "b,2,2013-01-02 00:00,\n"), parts=parts)
    assert report.delivered == {desk.topic: 2}
    first, second = desk.records(2)
    assert (first.key(), first.timestamp()[1]) == (b"a", 1_356_998_400_000)
    assert first.headers() == [("source", b"test"), ("price", b"1.50"), ("note", b"x")]
    assert second.headers() == [("source", b"test"), ("price", b"2.00"), ("note", None)]
    assert desk.values(2)[0] == ORDER
    assert not desk.rejects_path.exists()


def test_bad_rows_are_rejected_with_line_reason_and_text_and_the_rest_goes_on(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = [
        ("b,1.505,2013-01-01T00:00:00Z,x", "field `price`: '1.505' does not fit decimal(9, 2)"),
        ("b,1,yesterday,x", "field `at`: 'yesterday' is no time like 2013-01-31T13:45:00Z"),
        (",1,2013-01-01T00:00:00Z,x", "field `id`: a value is required"),
        ("b,1", "it has 2 cells, the header 4"),
        ("b,1,2013-01-01T00:00:00Z,\udcff", NOT_UTF8),
        ("b,1,1969-01-01T00:00:00Z,x", "field `at`: a record's timestamp must lie after 1970-01-01T00:00Z"),
        ("b,1,9999-01-01T00:00:00Z,x", "its event time lies further ahead than the topic takes (3,600,000 ms)"),
    ]
    text = HEADER + 'a,1.50,2013-01-01T00:00:00Z,"x\ny"\n' + "".join(f"{row}\n" for row, _ in bad) + GOOD
    report = desk.publish(desk.write("in.csv", text.encode("utf-8", "surrogateescape")))
    assert report.complete
    assert desk.values(2) == [ORDER | {"note": "x\ny"}, ORDER]
    assert desk.rejected() == [(line, reason, row) for line, (row, reason) in enumerate(bad, start=4)]
    printed = capsys.readouterr()
    assert f"read 9 rows = 2 accepted + 7 rejected (see {desk.rejects_path})" in printed.out
    assert f"rejected: {desk.folder / 'in.csv'} line 4: field `price`" in printed.err


def test_a_null_key_is_rejected_and_a_topic_without_keys_takes_it(desk: Desk) -> None:
    path = desk.write("in.csv", HEADER + GOOD + "b,1,2013-01-01T00:00:00Z,\n")
    desk.publish(path, parts=Parts(key="note"))
    assert desk.rejected() == [(3, "field `note`: it is null, and a record needs it", "b,1,2013-01-01T00:00:00Z,")]
    desk.rejects_path.unlink()
    desk.publish(path, parts=Parts(key=None))
    assert [record.key() for record in desk.records(3)] == [b"x", None, None]


def test_a_row_that_is_too_large_for_the_topic_is_rejected(desk: Desk) -> None:
    rows = [{"id": "a", "price": 1, "at": 1, "note": "x" * size} for size in (1_048_000, 1_048_600)]
    report = desk.publish(desk.write("in.jsonl", "\n".join(map(json.dumps, rows))))
    assert report.delivered == {desk.topic: 1}
    (line, reason, _) = desk.rejected()[0]
    assert (line, reason) == (2, "1,048,690 bytes are more than the topic takes (1,048,588)")


def test_json_lines_arrive_with_their_types_and_bad_ones_are_rejected(desk: Desk) -> None:
    rows = ['{"id": "a", "price": 1.50, "at": "2013-01-01T00:00:00Z", "note": "x"}', "", '{"id": "a"', "[1]"]
    rows += ['{"id": 1, "price": 1, "at": 1}', '{"id": "b", "price": 1.50, "at": 1356998400000}', '{"id": "c"}']
    rows += ['{"id": "d", "id": "e"}', '{"id": "f", "price": 1, "at": 1, "extra": 2}']
    desk.publish(desk.write("in.jsonl", "\ufeff" + "\n".join(rows)))
    assert desk.values(2) == [ORDER, ORDER | {"id": "b", "note": None}]
    assert [(line, reason[:28]) for line, reason, _ in desk.rejected()] == [
        (3, "it is no JSON: Expecting ','"),
        (4, "it is list, not an object"),
        (5, "field `id`: 1 is no str"),
        (7, "field `price`: it is missing"),
        (8, "it is no JSON: `id` is there"),
        (9, "the schema has no field `ext"),
    ]


def test_gzip_json_with_an_inferred_schema_round_trips_nested_values(desk: Desk) -> None:
    rows = [{"id": 1, "tags": ["a", None], "at": {"place name": "é", "x": 1.5}}, {"id": 2, "tags": [], "at": None}]
    path = desk.write("in.jsonl.gz", gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    desk.publish(path, parts=Parts(key="id"), schema=None)
    assert desk.values(2) == [rows[0] | {"at": {"place_name": "é", "x": 1.5}}, rows[1]]
    assert [record.key() for record in desk.records(2)] == [b"1", b"2"]


def test_the_inferred_schema_is_written_for_review_and_used_from_then_on(
    desk: Desk, capsys: pytest.CaptureFixture[str]
) -> None:
    path = desk.write("in.csv", "id;Unit price\n1;2.5\n")
    desk.publish(path, parts=Parts(key="id"), schema=None)
    written = desk.folder / f"{desk.topic}.avsc"
    assert f"inferred, and written to {written} for review" in capsys.readouterr().out
    written.write_text(written.read_text().replace('"Unit_price"', '"price"'))
    desk.publish(path, parts=Parts(key="id"), schema=None)
    assert "which was there" in capsys.readouterr().out
    assert desk.values(2) == [{"id": 1, "Unit_price": 2.5}, {"id": 1, "price": 2.5}]
    assert [each.version for each in FileRegistry(desk.folder / "registry").versions(f"{desk.topic}-value")] == [1, 2]


def test_a_schema_that_breaks_earlier_data_is_refused_before_anything_is_published(desk: Desk) -> None:
    path = desk.write("in.csv", HEADER + GOOD)
    desk.publish(path)
    scaled = ORDERS.replace('"scale": 2', '"scale": 3')
    with pytest.raises(TidemarkError, match=rf"INCOMPATIBLE_SCHEMA: {desk.topic}-value version 1: price: .*decimal"):
        desk.publish(path, schema=scaled)
    assert desk.values(1) == [ORDER]
    assert len(FileRegistry(desk.folder / "registry").versions(f"{desk.topic}-value")) == 1


def test_infer_only_writes_the_schema_once_and_needs_no_broker(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("id\n1\n")
    request = FileRequest("orders", [tmp_path / "in.csv"], Parts(key=None))
    infer_only(request, tmp_path)
    assert json.loads((tmp_path / "orders.avsc").read_text())["name"] == "Orders"
    with pytest.raises(TidemarkError, match=r"SCHEMA_EXISTS: .*orders\.avsc"):
        infer_only(request, tmp_path)


def test_parquet_arrives_with_its_types(desk: Desk) -> None:
    row = {
        "id": 7,
        "money": Decimal("-1.25"),
        "zoned": dt.datetime(2013, 7, 1, 12, 0, 0, 5, dt.UTC),
        "nanos": dt.datetime(2013, 7, 1, 12, 0, 0, 5, dt.UTC),
        "naive": dt.datetime(2013, 7, 1, 12),
        "day": dt.date(2013, 7, 1),
        "clock": dt.time(1, 2, 3),
        "unsigned": 2**64 - 1,
        "point": {"x": 1.5, "tags": ["a", None]},
        "counts": {"a": 1},
        "nothing": None,
    }
    types = [pa.int16(), pa.decimal128(9, 2), pa.timestamp("us", "Europe/Paris"), pa.timestamp("ns", "UTC")]
    types += [pa.timestamp("ms"), pa.date32(), pa.time64("us"), pa.uint64()]
    types += [pa.struct([("x", pa.float64()), ("tags", pa.list_(pa.string()))]), pa.map_(pa.string(), pa.int64())]
    schema = pa.schema(list(zip(row, [*types, pa.string()], strict=True)))
    finer = row | {"nanos": dt.datetime(2013, 7, 1, tzinfo=dt.UTC), "id": 8}
    table = pa.Table.from_pylist([row, finer], schema)
    # One nanosecond more in the second row alone.
    nanos = pc.add(table["nanos"].cast(pa.int64()), pa.array([0, 1])).cast(pa.timestamp("ns", "UTC"))
    pq.write_table(table.set_column(3, "nanos", nanos), desk.folder / "in.parquet")
    desk.publish(desk.folder / "in.parquet", parts=Parts("id", "zoned"), schema=None)
    assert desk.values(1) == [row]
    assert desk.records(1)[0].timestamp()[1] == 1_372_680_000_000
    (line, reason, raw) = desk.rejected()[0]
    assert (line, "`nanos`" in reason, "finer than its type" in reason, '"id": 8' in raw) == (2, True, True, True)


def test_avro_arrives_with_its_logical_types(desk: Desk) -> None:
    with (desk.folder / "in.avro").open("wb") as file:
        fastavro.writer(file, json.loads(ORDERS), [ORDER, ORDER | {"note": None}], codec="deflate")
    desk.publish(desk.folder / "in.avro", schema=None)
    assert desk.values(2) == [ORDER, ORDER | {"note": None}]
    assert desk.records(2)[0].timestamp()[1] == 1_356_998_400_000


def test_several_files_are_published_one_after_the_other(desk: Desk) -> None:
    paths = [desk.write(f"{name}.csv", HEADER + GOOD.replace("a,", f"{name},")) for name in "abc"]
    desk.publish(*paths)
    assert [value["id"] for value in desk.values(3)] == ["a", "b", "c"]


def test_an_empty_file_publishes_nothing_and_is_no_failure(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    report = desk.publish(desk.write("in.csv", ""), desk.write("header.csv", HEADER))
    assert report.complete
    printed = capsys.readouterr()
    assert "read 0 rows = 0 accepted + 0 rejected" in printed.out
    assert "in.csv is empty" in printed.err


def test_times_without_an_offset_are_read_in_the_zone_that_is_given(desk: Desk) -> None:
    reading = Reading(zone=dt.timezone(dt.timedelta(hours=-5)))
    desk.publish(desk.write("in.csv", HEADER + "a,1.50,2012-12-31 19:00,x\n"), reading=reading)
    assert desk.values(1) == [ORDER]


def test_extra_columns_are_refused_unless_they_are_to_be_left_out(desk: Desk) -> None:
    path = desk.write("in.csv", HEADER.replace("note", "note,colour") + GOOD.replace("x\n", "x,red\n"))
    with pytest.raises(TidemarkError, match=r"UNKNOWN_COLUMNS: .*in\.csv: the schema has no field for `colour`"):
        desk.publish(path).require_complete()
    desk.publish(path, reading=Reading(ignore_extra=True))
    assert desk.values(1) == [ORDER]


def test_a_file_without_a_required_column_is_refused_as_a_whole(desk: Desk) -> None:
    with pytest.raises(TidemarkError, match=r"MISSING_COLUMNS: .*`at`"):
        desk.publish(desk.write("in.csv", "id,price\na,1\n")).require_complete()
    desk.records(0)


@pytest.mark.parametrize(
    ("limit", "stops_after"), [(RejectLimit(), 100), (RejectLimit(share=None, count=20), 42), (RejectLimit(None), None)]
)
def test_too_many_rejects_stop_the_run_with_a_named_error(
    desk: Desk, limit: RejectLimit, stops_after: int | None
) -> None:
    report = desk.publish(desk.write("in.csv", HEADER + (GOOD + "bad\n") * 200), limit=limit)
    if stops_after is None:
        assert report.complete
        assert report.delivered == {desk.topic: 200}
        return
    assert report.delivered == {desk.topic: stops_after // 2}
    with pytest.raises(TidemarkError, match=rf"TOO_MANY_REJECTS: .* of {stops_after} rows were rejected, more than"):
        report.require_complete()


def test_a_run_that_rejects_every_row_is_a_failure(desk: Desk) -> None:
    with pytest.raises(TidemarkError, match="TOO_MANY_REJECTS: 2 of 2 rows were rejected, all of them; the first: "):
        desk.publish(desk.write("in.csv", HEADER + "bad\nworse\n")).require_complete()


def test_a_damaged_file_is_published_up_to_the_damage_and_fails(desk: Desk) -> None:
    data = gzip.compress((HEADER + GOOD * 300_000).encode(), compresslevel=1)
    report = desk.publish(desk.write("in.csv.gz", data[: len(data) // 2]))
    assert 1_000 < report.delivered[desk.topic] < 300_000
    with pytest.raises(TidemarkError, match=r"BAD_FILE: .*in\.csv\.gz: unreadable after line"):
        report.require_complete()


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        (Parts(key="idd"), "UNKNOWN_FIELD: the schema has no field `idd` for the key; did you mean `id`"),
        (Parts(key="id", event_time="note_at"), "UNKNOWN_FIELD: .* for the event time"),
        (Parts(key="id", header_fields=["nope"]), "UNKNOWN_FIELD: .* for the header"),
    ],
)
def test_a_field_that_cannot_be_what_it_is_to_be_is_refused_before_anything_is_sent(
    desk: Desk, parts: Parts, says: str
) -> None:
    with pytest.raises(TidemarkError, match=says):
        desk.publish(desk.write("in.csv", HEADER + GOOD), parts=parts)
    desk.records(0)


def test_a_missing_file_is_noticed_before_anything_is_sent(desk: Desk) -> None:
    with pytest.raises(TidemarkError, match=r"NO_FILE: no file .*missing\.csv"):
        desk.publish(desk.write("in.csv", HEADER + GOOD), desk.folder / "missing.csv")
    desk.records(0)


def test_an_event_time_of_text_that_is_no_time_is_rejected(desk: Desk) -> None:
    path = desk.write("in.csv", HEADER + GOOD.replace(",x", ",2013-01-01T00:00Z") + GOOD)
    desk.publish(path, parts=Parts("id", "note"))
    assert desk.records(1)[0].timestamp()[1] == 1_356_998_400_000
    assert desk.rejected()[0][:2] == (3, "field `note`: 'x' is no time like 2013-01-31T13:45:00Z")


def test_a_missing_topic_is_created_on_request_only(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    path = desk.write("in.csv", HEADER + GOOD)
    desk.topic += "-new"
    with pytest.raises(TidemarkError, match="NO_TOPIC"):
        desk.publish(path)
    desk.publish(path, create_partitions=1)
    told = capsys.readouterr().out
    assert f"created {desk.topic}, 1 partition, " in told
    assert told.count("reading ") == 1  # though its first rows were read before, for the sake of the topic
    assert desk.values(1) == [ORDER]


@pytest.mark.parametrize(
    ("name", "data", "more", "code"),
    [
        ("in.arrow", "x", {}, "UNKNOWN_FORMAT"),
        ("in.csv", "id\n", {"schema": None}, "NO_ROWS"),
        ("in.csv", "name\n\udce9\n", {"schema": None}, "BAD_FILE"),
        ("in.csv", "id,colour\n1,red\n", {}, "UNKNOWN_COLUMNS"),
        ("in.csv", HEADER + "bad\n" * 3, {}, "TOO_MANY_REJECTS"),
        ("in.csv", HEADER + GOOD, {"parts": Parts("nope")}, "UNKNOWN_FIELD"),
        ("in.csv", HEADER + GOOD, {"topic": "no topic!"}, "BAD_NAME"),
    ],
)
def test_a_refusal_leaves_no_topic_and_no_schema_behind(
    desk: Desk, name: str, data: str, more: dict[str, Any], code: str
) -> None:
    desk.topic = more.pop("topic", desk.topic + "-refused")
    with pytest.raises(TidemarkError, match=code):
        desk.publish(desk.write(name, data.encode("utf-8", "surrogateescape")), create_partitions=1, **more)
    assert desk.topic not in AdminClient({"bootstrap.servers": desk.servers}).list_topics(timeout=10).topics
    assert not (desk.folder / f"{desk.topic}.avsc").exists()
    assert not (desk.folder / "registry").exists()


def test_rows_that_were_looked_at_before_the_topic_was_created_are_rejected_once(desk: Desk) -> None:
    desk.topic += "-once"
    desk.publish(desk.write("in.csv", HEADER + "bad\n" + GOOD), create_partitions=1)
    assert desk.values(1) == [ORDER]
    assert [line for line, _, _ in desk.rejected()] == [2]


def test_rejects_never_overwrite_a_file_that_is_there(desk: Desk) -> None:
    desk.rejects_path.write_text("precious")
    with pytest.raises(TidemarkError, match="NO_REJECT_FILE"):
        desk.publish(desk.write("in.csv", HEADER + "bad\n" + GOOD)).require_complete()
    assert desk.rejects_path.read_text() == "precious"


def test_for_a_topic_with_events_of_several_types_the_schema_must_be_named() -> None:
    several = Topic("orders", 1, "id", schemas=("created", "paid"))
    with pytest.raises(TidemarkError, match=r"UNKNOWN_EVENT: .*created, paid; name one: --schema .*created\.avsc"):
        find_schema("orders", None, several)


def test_the_reject_file_of_the_longest_topic_has_a_name_that_a_file_can_have(tmp_path: Path) -> None:
    path = next(numbered(tmp_path, "t" * 249))
    path.write_text("")
    assert next(numbered(tmp_path, "orders")).name == "orders-1.jsonl"
