"""What stopped a query: our own error as it was raised, or the name of what Java's exceptions tell."""

from contextlib import suppress

import pytest
from pyspark.errors import StreamingQueryException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming.query import StreamingQuery

from conf.errors import TidemarkError
from jobs.connectors.causes import Cause, cause_line, causes
from jobs.pipeline.termination import LeftOut, batch_errors, single_line_errors, stopped_by, topics_refused
from tests.jobs.scratch import Scratch

WORKER = Cause(
    "org.apache.spark.api.python.PythonException",
    """[PYTHON_EXCEPTION] An exception was thrown from the Python worker:
Traceback (most recent call last):
  File "worker.py", line 1, in main
    yield from rows()
    ^^^^^^^^^^^^^^^^^
{last}

\tat org.apache.spark.api.python.BasePythonRunner.handle(PythonRunner.scala:1)""",
    "PYTHON_EXCEPTION",
)


def test_what_a_python_worker_raised_is_told_without_java_around_it() -> None:
    raised = WORKER._replace(message=WORKER.message.format(last="ValueError: no such gauge"))
    assert cause_line([Cause("org.apache.spark.SparkException", "Job aborted"), raised]) == "ValueError: no such gauge"


def test_other_causes_are_told_by_their_class_and_first_line() -> None:
    assert cause_line(OSError("power cut\nand more")) == "OSError: power cut"
    assert cause_line([Cause("java.io.IOException", "\n  no route  \nto it")]) == "java.io.IOException: no route"
    assert cause_line([Cause("java.lang.NullPointerException", "")]) == "java.lang.NullPointerException"
    assert cause_line([]) == "no cause given"


def test_the_chain_of_an_exception_goes_through_python_and_java(spark: SparkSession) -> None:
    try:
        try:
            spark.range(1).select(F.raise_error(F.lit("no such gauge"))).collect()
        except Exception as exc:
            raise OSError("power cut") from exc
    except OSError as exc:
        found = causes(exc)
    assert (found[0].kind, found[0].error is not None) == ("builtins.OSError", True)
    assert found[-1].condition == "USER_RAISED_EXCEPTION"
    assert found[-1].parameters["errorMessage"] == "no such gauge"
    assert found[-1].error is None


def test_a_failing_write_is_one_line_with_the_whole_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(TidemarkError, match="BATCH_FAILED: OSError: power cut; ") as failed, single_line_errors():
        raise OSError("power cut\nand more")
    assert "and more" not in str(failed.value)
    assert "goes on" not in failed.value.remedy
    assert "and more" in caplog.text
    assert caplog.records[-1].exc_info is not None


def test_an_error_of_ours_passes_as_it_is() -> None:
    with pytest.raises(TidemarkError, match="TYPE_CHANGED: a; b"), single_line_errors():
        raise TidemarkError("TYPE_CHANGED", "a", "b")


def ended(scratch: Scratch, topic: str, error: Exception | None) -> StreamingQuery:
    """A query on `topic` whose callback raises `error`, once it has ended."""

    def write(batch: DataFrame, _: int) -> None:
        with batch_errors(batch.sparkSession):
            if error is not None:
                raise error

    frame = scratch.run().records(topic)
    writer = frame.writeStream.option("checkpointLocation", str(scratch.folder / f"checkpoint-{error is None}"))
    query = writer.foreachBatch(write).trigger(availableNow=True).start()
    with suppress(StreamingQueryException):
        query.awaitTermination()
    return query


def test_the_error_of_a_callback_is_told_as_the_object_that_it_was(scratch: Scratch) -> None:
    topic = scratch.topic()
    scratch.send(topic, scratch.reading(topic, "a", 1))
    error = TidemarkError("TYPE_CHANGED", "a; with a semicolon", "do this; or that")
    query = ended(scratch, topic, error)
    assert stopped_by(query) is error
    # Told once; from then on Java's text of it is what there is.
    assert str(stopped_by(query)) == str(error)
    assert stopped_by(ended(scratch, topic, None)) is None
    unforeseen = stopped_by(ended(scratch, topic, ZeroDivisionError("by what?")))
    assert str(unforeseen).startswith("BATCH_FAILED: ZeroDivisionError: by what?; ")


BAD = TidemarkError("BAD_SCHEMA", "topic a: field x", "write it as text")
MISSING = TidemarkError("TOPIC_MISSING", "topic `b` is not there", "create it")


def test_a_topic_that_cannot_be_read_is_refused_with_the_command_that_reads_the_others() -> None:
    stop = topics_refused({"a": BAD}, ["a", "c", "d"], "ingest.topics")
    assert str(stop) == (
        "BAD_SCHEMA: topic a: field x; write it as text; or read the others alone: --set ingest.topics=c,d"
    )


def test_all_topics_that_cannot_be_read_are_said_in_one_line() -> None:
    stop = topics_refused({"a": BAD, "b": MISSING}, ["a", "b", "c"], "ingest.topics")
    assert str(stop) == (
        "TOPICS_REFUSED: 2 topics cannot be read: (1) BAD_SCHEMA: topic a: field x; write it as text; "
        "(2) TOPIC_MISSING: topic `b` is not there; create it; "
        "mend each; or read the others alone: --set ingest.topics=c"
    )


def test_where_no_topic_can_be_read_there_are_no_others_to_read() -> None:
    assert str(topics_refused({"a": BAD}, ["a"], "ingest.topics")) == str(BAD)


def test_what_is_left_out_is_told_at_the_start_and_ends_the_run_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    counted: list[tuple[str, str]] = []
    left_out = LeftOut(is_allowed=True)
    assert left_out.error() is None
    left_out.on_left_out = lambda query, stop: counted.append((query, stop.code))
    left_out.add("ingest.a", BAD)
    left_out.report()
    left_out.add("ingest.b", MISSING)
    left_out.report("ingest.b")

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
    left_out.require_included("ingest.b")
    with pytest.raises(TidemarkError, match="BAD_SCHEMA"):
        left_out.require_included("ingest.a")
