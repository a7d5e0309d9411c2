"""What cannot begin is said at once, all of it, with how to go on without it; a run that did so ends by its name."""

import pytest

from conf.errors import TidemarkError
from jobs.pipeline.left_out import LeftOut, refusal

BAD = TidemarkError("BAD_SCHEMA", "topic a: field x", "write it as text")
MISSING = TidemarkError("TOPIC_MISSING", "topic `b` is not there", "create it")


def test_a_topic_that_cannot_be_read_is_refused_with_the_command_that_reads_the_others() -> None:
    stop = refusal({"a": BAD}, ["a", "c", "d"], "ingest.topics")
    assert str(stop) == (
        "BAD_SCHEMA: topic a: field x; write it as text; or read the others alone: --set ingest.topics=c,d"
    )


def test_all_topics_that_cannot_be_read_are_said_in_one_line() -> None:
    stop = refusal({"a": BAD, "b": MISSING}, ["a", "b", "c"], "ingest.topics")
    assert str(stop) == (
        "TOPICS_REFUSED: 2 topics cannot be read: (1) BAD_SCHEMA: topic a: field x; write it as text; "
        "(2) TOPIC_MISSING: topic `b` is not there; create it; "
        "mend each; or read the others alone: --set ingest.topics=c"
    )


def test_where_no_topic_can_be_read_there_are_no_others_to_read() -> None:
    assert str(refusal({"a": BAD}, ["a"], "ingest.topics")) == str(BAD)


def test_what_is_left_out_is_told_at_the_start_and_ends_the_run_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    counted: list[tuple[str, str]] = []
    left_out = LeftOut(is_allowed=True)
    assert left_out.error() is None
    left_out.on_left_out = lambda query, stop: counted.append((query, stop.code))
    left_out.add("ingest.a", BAD)
    left_out.tell()
    left_out.add_and_tell("ingest.b", MISSING)

    assert counted == [("ingest.a", "BAD_SCHEMA"), ("ingest.b", "TOPIC_MISSING")]
    assert capsys.readouterr().err.splitlines() == [
        f"query ingest.a is left out: {BAD}; the others go on",
        f"query ingest.b is left out: {MISSING}; the others go on",
    ]
    assert str(left_out.error()) == (
        "QUERY_FAILED: query ingest.a was left out: BAD_SCHEMA: topic a: field x; "
        "query ingest.b was left out: TOPIC_MISSING: topic `b` is not there; "
        "write it as text; create it; all others went on"
    )


def test_a_query_that_is_left_out_is_not_started_again() -> None:
    left_out = LeftOut()
    left_out.add("ingest.a", BAD)
    left_out.require_there("ingest.b")
    with pytest.raises(TidemarkError, match="BAD_SCHEMA"):
        left_out.require_there("ingest.a")
