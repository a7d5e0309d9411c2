"""Successive batches meet, or the offsets between them are named."""

from typing import Any

from jobs.operations.coverage.query_offsets import (
    Gap,
    Key,
    OffsetCommit,
    Span,
    gaps_between,
    gaps_within,
    merge_spans,
    query_offsets_of,
)

KEY = Key("ingest.t", "q1", "bronze")


def claim(
    batch: int, start: Any, end: Any, since: Any = None, key: Key = KEY, every: bool = True, version: int = 0
) -> OffsetCommit:
    return OffsetCommit(key, batch, version or batch, None, every, {"from": start, "until": end, "since": since})


def at(*offsets: int) -> list[Any]:
    return [{"t": {str(partition): offset for partition, offset in enumerate(offsets)}}]


def found(*claims: OffsetCommit) -> list[tuple[bool, Span]]:
    return [(each.is_overlap, each.span) for each in gaps_within(query_offsets_of(claims), claims[0].batch == 0)]


def test_batches_that_meet_have_no_break() -> None:
    assert found(claim(0, at(0, 0), at(3, 2)), claim(1, at(3, 2), at(5, 2)), claim(2, at(5, 2), at(5, 9))) == []


def test_a_gap_and_an_overlap_are_named_to_the_offset() -> None:
    assert found(claim(0, at(0, 0), at(3, 2)), claim(1, at(4, 1), at(5, 2))) == [
        (False, Span("t", 0, 3, 4)),
        (True, Span("t", 1, 1, 2)),
    ]


def test_a_first_batch_that_is_not_there_is_a_gap() -> None:
    chain = query_offsets_of([claim(1, at(3), at(5), since=at(0))])
    (only,) = gaps_within(chain, from_its_beginning=True)
    assert only == Gap(False, KEY, Span("t", 0, 0, 3), "its beginning", "batch 1")
    assert list(gaps_within(chain, from_its_beginning=False)) == []


def test_a_partition_that_was_added_begins_at_its_beginning() -> None:
    first = claim(0, at(2), at(3), since=at(2))
    assert found(first, claim(1, at(3), at(3, 4), since=at(2))) == []
    chain = query_offsets_of([first, claim(1, at(3), at(3, 4), since=at(2))])
    assert chain.spans == (Span("t", 0, 2, 3), Span("t", 1, 0, 4))


def test_a_source_that_begins_late_begins_where_it_says() -> None:
    later = [*at(3), {"u": {"0": 9}}]
    begun = claim(1, [*at(3), {"u": {"0": 7}}], later, since=[*at(0), {"u": {"0": 7}}])
    assert found(claim(0, [*at(0), None], [*at(3), None], since=[*at(0), None]), begun) == []


def test_a_statement_that_leaves_batches_out_has_no_gaps_and_may_not_overlap() -> None:
    first = claim(0, at(0), at(3), every=False)
    assert found(first, claim(4, at(8), at(9), every=False)) == []
    assert found(first, claim(4, at(2), at(9), every=False)) == [(True, Span("t", 0, 2, 3))]


def test_what_spark_no_longer_knew_cannot_be_compared() -> None:
    assert found(claim(0, at(0), at(3)), claim(1, None, at(5))) == []


def test_a_newer_query_of_the_same_sink_goes_on_where_the_older_one_ended() -> None:
    older, newer = (
        query_offsets_of([claim(0, at(a), at(b), key=KEY._replace(query_id=q))])
        for q, a, b in (("q1", 0, 5), ("q2", 5, 9))
    )
    again = query_offsets_of([claim(0, at(8), at(20), key=KEY._replace(query_id="q3"))])
    assert list(gaps_between([older, newer])) == []
    (overlap,) = gaps_between([older, newer, again])
    assert (overlap.is_overlap, overlap.span) == (True, Span("t", 0, 8, 9))
    (gap,) = gaps_between([older, again])
    assert (gap.is_overlap, gap.span) == (False, Span("t", 0, 5, 8))


def test_sources_that_are_not_kafkas_have_no_spans() -> None:
    assert query_offsets_of([claim(0, [None, "17"], [{"logOffset": 0}, "23"])]).spans == ()


def test_spans_that_meet_are_one() -> None:
    parts = [Span("t", 0, 5, 9), Span("t", 0, 0, 5), Span("t", 1, 0, 2), Span("t", 1, 4, 5), Span("t", 1, 1, 3)]
    assert merge_spans(parts) == [Span("t", 0, 0, 9), Span("t", 1, 0, 3), Span("t", 1, 4, 5)]
