"""A failure's causes, as they were recorded, and the stop that they are told by."""

from collections.abc import Sequence

import pytest

from conf.errors import TidemarkError
from jobs.connectors.causes import Cause, cause_line
from jobs.pipeline.errors import DeniedError, UnreadableError, known_error, with_rights

SPARK, KAFKA = "org.apache.spark.SparkException", "org.apache.kafka.common.errors"
TABLES, CHECKPOINTS = "/data/tables", "/data/checkpoints"
LOG = f"{TABLES}/silver/departures/_delta_log"
ABORTED = Cause(SPARK, "Job aborted due to stage failure: Task 0 in stage 3.0 failed 4 times")


def unread(file: str, condition: str = "FAILED_READ_FILE.NO_HINT") -> Cause:
    message = f"[{condition}] Encountered error while reading file file://{file}.  SQLSTATE: KD001"
    return Cause(SPARK, message, condition, {"path": f"file://{file}"})


TORN_LOG = (
    unread(f"{LOG}/00000000000000000006.json"),
    Cause(
        SPARK, "Malformed records are detected", "MALFORMED_RECORD_IN_PARSING.WITHOUT_SUGGESTION", {"badRecord": "["}
    ),
    Cause(
        "com.fasterxml.jackson.core.io.JsonEOFException",
        'Unexpected end-of-input: expected close marker for Object (start marker at [Source: (byte[])"{"add":{"path":'
        '"part-00001-..."; line: 1, column: 8])\n at [Source: UNKNOWN; line: 1, column: 31]',
    ),
)
TORN_CHECKPOINT = (
    unread(f"{LOG}/00000000000000000002.checkpoint.parquet"),
    Cause("java.lang.RuntimeException", f"file:{LOG}/00000000000000000002.checkpoint.parquet is not a Parquet file."),
)
NO_PARQUET = TORN_CHECKPOINT[1]._replace(frames=("org.apache.parquet.hadoop.ParquetFileReader",))  # its schema is read
LOST_FILE = (
    ABORTED,
    unread(f"{TABLES}/hourly_delays/origin=JFK/part-0.snappy.parquet", "FAILED_READ_FILE.FILE_NOT_EXIST"),
    Cause("java.io.FileNotFoundException", f"File file:{TABLES}/hourly_delays/origin=JFK/part-0 does not exist"),
)
LOST_STATE = (
    ABORTED,
    Cause("java.io.FileNotFoundException", f"File file:{CHECKPOINTS}/a/a/state/0/0/5.delta does not exist"),
)
TORN_OFFSETS = (
    Cause("java.lang.IllegalStateException", f"Failed to read log file file:{CHECKPOINTS}/a/a/offsets/11. Incomplete"),
    Cause(
        "java.lang.IllegalStateException",
        "Incomplete log file",
        frames=("scala.Predef$", "org.apache.spark.sql.execution.streaming.checkpointing.OffsetSeqLog"),
    ),
)
TORN_STATE = (
    ABORTED,
    Cause(SPARK, "An error occurred during loading state.", "CANNOT_LOAD_STATE_STORE.UNCATEGORIZED"),
    Cause("java.io.IOException", "Stream is corrupted"),
    Cause("net.jpountz.lz4.LZ4Exception", "Error decoding offset 34 of input buffer"),
)
TORN_SCHEMA_OF_STATE = (
    Cause(
        "org.apache.spark.SparkIllegalArgumentException",
        "Unsupported data type",
        "UNSUPPORTED_DATATYPE",
        frames=(
            "org.apache.spark.sql.catalyst.parser.LegacyTypeStringParser$",
            "org.apache.spark.sql.execution.streaming.state.SchemaHelper$SchemaV2Reader",
        ),
    ),
)


@pytest.mark.parametrize(
    ("found", "code", "names"),
    [
        (TORN_LOG, "TABLE_LOG_DAMAGED", f"{LOG}/00000000000000000006.json"),
        (TORN_CHECKPOINT, "TABLE_LOG_DAMAGED", f"{LOG}/00000000000000000002.checkpoint.parquet"),
        ((NO_PARQUET,), "TABLE_LOG_DAMAGED", f"{LOG}/00000000000000000002.checkpoint.parquet"),
        (LOST_FILE, "DATA_FILE_DAMAGED", f"{TABLES}/hourly_delays/origin=JFK/part-0.snappy.parquet"),
        (LOST_STATE, "STATE_DAMAGED", f"{CHECKPOINTS}/a/a/state/0/0/5.delta"),
        (TORN_OFFSETS, "CHECKPOINT_DAMAGED", f"{CHECKPOINTS}/a/a/offsets/11"),
    ],
)
def test_a_damaged_file_is_named_by_what_it_is_a_part_of(found: Sequence[Cause], code: str, names: str) -> None:
    stop = known_error(found)
    assert stop is not None
    kind = found[-1].kind.rpartition(".")[2]
    assert (stop.code, stop.message) == (code, f"{names} is lost or damaged ({kind})")


def test_a_damaged_state_is_named_where_no_file_is() -> None:
    for found, kind in ((TORN_STATE, "LZ4Exception"), (TORN_SCHEMA_OF_STATE, "SparkIllegalArgumentException")):
        stop = known_error(found)
        assert str(stop).startswith(f"STATE_DAMAGED: a file of the query's state is damaged ({kind}); restore the ch")


def test_a_checkpoint_of_a_tables_log_can_be_done_without() -> None:
    assert f"remove it and {LOG}/_last_checkpoint" in str(known_error(TORN_CHECKPOINT))


@pytest.mark.parametrize(
    ("cause", "code"),
    [
        (Cause("x", "", "KAFKA_DATA_LOSS.START_OFFSET_RESET"), "DATA_LOST"),
        (Cause("org.apache.kafka.clients.consumer.OffsetOutOfRangeException", "out of range"), "DATA_LOST"),
        (Cause("x", "", "CONCURRENT_STREAM_LOG_UPDATE"), "TWO_DRIVERS"),
        (Cause("x", "", "CONCURRENT_QUERY"), "TWO_DRIVERS"),
        (Cause("x", "", "STATE_STORE_VALUE_SCHEMA_NOT_COMPATIBLE"), "STATE_CHANGED"),
        (Cause("x", "", "STREAMING_STATEFUL_OPERATOR_NOT_MATCH_IN_STATE_METADATA"), "STATE_CHANGED"),
        (Cause("org.apache.spark.SparkConcurrentModificationException", "Multiple streaming queries"), "TWO_DRIVERS"),
        (Cause(f"{KAFKA}.SaslAuthenticationException", "invalid credentials"), "BROKER_REFUSES"),
        (Cause(f"{KAFKA}.SslAuthenticationException", "SSL handshake failed"), "BROKER_REFUSES"),
        (Cause(f"{KAFKA}.TopicAuthorizationException", "Not authorized to access topics: [a]"), "NOT_AUTHORIZED"),
        (Cause(f"{KAFKA}.GroupAuthorizationException", "Not authorized to access group: a"), "NOT_AUTHORIZED"),
        (Cause(f"{KAFKA}.UnknownTopicOrPartitionException", "This server does not host"), "TOPIC_MISSING"),
        (Cause(f"{KAFKA}.TimeoutException", "Timeout expired"), "BROKER_UNREACHABLE"),
        (Cause("java.io.IOException", "No space left on device"), "DISK_FULL"),
        (Cause("org.apache.hadoop.fs.FSError", "java.io.IOException: No space left on device"), "DISK_FULL"),
    ],
)
def test_an_error_is_named_by_its_class_or_condition_wherever_it_is_in_the_chain(cause: Cause, code: str) -> None:
    for found in ([cause], [ABORTED, cause], [cause, Cause("java.lang.Exception", "less to the point")]):
        stop = known_error(found)
        assert stop is not None
        assert (stop.code, bool(stop.remedy)) == (code, True)


def test_what_kafka_denies_is_named_with_the_command_that_grants_it() -> None:
    names = {"topics": "a b"}
    stop = known_error([ABORTED, Cause(f"{KAFKA}.TopicAuthorizationException", "Not authorized", parameters=names)])
    assert isinstance(stop, DeniedError)
    lacking = "NOT_AUTHORIZED: TopicAuthorizationException: this client lacks the right to Read, Describe on topic a"
    assert str(stop).startswith(f"{lacking}, and Read, Describe on topic b; ")
    assert "--allow-principal User:NAME --operation Read --operation Describe --topic a`" in stop.remedy
    written = with_rights(stop, {}, ["c"], "b")
    assert str(written).startswith(f"{lacking}, and Write, Describe on topic b; ")
    nameless = known_error([Cause(f"{KAFKA}.TopicAuthorizationException", "Not authorized")])
    assert isinstance(nameless, DeniedError)
    assert "may not do this: Not authorized" in str(nameless)
    assert "to Read, Describe on topic c; " in str(with_rights(nameless, {}, ["c"]))
    group = known_error([Cause(f"{KAFKA}.GroupAuthorizationException", "Not authorized", parameters={"group": "g"})])
    assert "--operation Read --group g`" in str(group)


def test_a_timestamp_that_spark_does_not_read_is_named_with_its_place() -> None:
    names = {"topic": "a", "partition": "1", "offset": "7", "timestamp": "1357020000000000000"}
    kind, condition = "org.apache.spark.sql.kafka010.KafkaIllegalStateException", "KAFKA_MALFORMED_RECORD_TIMESTAMP"
    stop = known_error(
        [ABORTED, Cause(kind, "", condition, names), Cause("java.lang.ArithmeticException", "long overflow")]
    )
    assert isinstance(stop, UnreadableError)
    assert (stop.topic, stop.partition, stop.offset) == ("a", 1, 7)
    assert str(stop).startswith("TIMESTAMP_OUT_OF_RANGE: a partition 1 offset 7: the record's timestamp is 13570200000")
    assert known_error([Cause("java.lang.ArithmeticException", "long overflow")]) is None


@pytest.mark.parametrize(
    "cause",
    [
        Cause("java.lang.IllegalStateException", "data may have been lost, Unexpected end-of-input, ChecksumException"),
        Cause("com.fasterxml.jackson.core.io.JsonEOFException", "Unexpected end-of-input in a registry's answer"),
        Cause("java.io.FileNotFoundException", "/etc/key.pem (No such file or directory)"),
        Cause("java.lang.OutOfMemoryError", "Java heap space, reading /data/a.parquet"),
        ABORTED,
    ],
)
def test_texts_alone_name_nothing(cause: Cause) -> None:
    assert known_error([ABORTED, cause]) is None


TRACE = """An exception was thrown:
Traceback (most recent call last):
  File "shard.py", line 1, in publish
    raise error
conf.errors.TidemarkError: FENCED: another writer has taken over; see that the query runs once only

\tat org.apache.spark.api.python.BasePythonRunner.handle(PythonRunner.scala:1)"""


def test_a_file_that_could_not_be_fetched_is_not_said_to_be_damaged() -> None:
    reset = Cause("java.net.SocketException", "Connection reset")
    assert known_error([ABORTED, unread(f"{TABLES}/a/part-0.parquet"), reset]) is None
    busy = Cause(SPARK, "An error occurred during loading state.", "CANNOT_LOAD_STATE_STORE.UNCATEGORIZED")
    assert known_error([busy, Cause("java.util.concurrent.TimeoutException", "")]) is None


ROCKSDB = "org.rocksdb.RocksDBException"
LOADING = Cause(SPARK, "An error occurred during loading state.", "CANNOT_LOAD_STATE_STORE.UNCATEGORIZED")


@pytest.mark.parametrize(
    ("cause", "file"),
    [
        (Cause("java.io.FileNotFoundException", f"{LOG}/06.json (Too many open files)"), f"{LOG}/06.json"),
        (Cause("java.nio.file.FileSystemException", f"{TABLES}/a.parquet: Too many open files"), f"{TABLES}/a.parquet"),
        (Cause("java.io.FileNotFoundException", f"{CHECKPOINTS}/state/0/0/5.delta (Permission denied)"), "5.delta"),
        (Cause(ROCKSDB, "While open a file: /tmp/0011.sst: Too many open files", "ROCKSDB_IOError"), "/tmp/0011.sst"),
        (Cause("java.io.IOException", "Too many open files"), "a file"),
    ],
)
def test_a_file_that_the_system_did_not_open_is_not_said_to_be_damaged(cause: Cause, file: str) -> None:
    stop = known_error([ABORTED, Cause("x", f"StateStoreId[{CHECKPOINTS}/a]"), LOADING, cause])
    assert stop is not None
    assert stop.code == "FILE_UNREADABLE"
    assert f"{file} cannot be opened" in stop.message
    assert "delete" not in stop.remedy and "remove" not in stop.remedy


def test_a_python_worker_that_was_killed_leaves_no_damaged_state() -> None:
    chain = (Cause(SPARK, "Python worker exited unexpectedly (crashed)"), Cause("java.io.EOFException", ""))
    in_state = chain[1]._replace(frames=("org.apache.spark.sql.execution.streaming.state.StateStoreRDD",))
    stop = known_error([ABORTED, chain[0], in_state])
    assert stop is not None and stop.code == "WORKER_DIED" and "delete" not in stop.remedy
    assert cause_line([ABORTED, *chain]) == f"{chain[0].line} (java.io.EOFException)"


def test_of_what_rocksdb_says_corruption_alone_is_damage() -> None:
    assert known_error([LOADING, Cause(ROCKSDB, "lock hold by current process", "ROCKSDB_IOError")]) is None
    corrupt = known_error([LOADING, Cause(ROCKSDB, "block checksum mismatch", "ROCKSDB_Corruption")])
    assert corrupt is not None and corrupt.code == "STATE_DAMAGED"


def test_our_own_error_comes_first_whoever_raised_it() -> None:
    own = TidemarkError("TYPE_CHANGED", "a", "b")
    lost = Cause("x", "", "KAFKA_DATA_LOSS")
    assert known_error([lost, Cause("conf.errors.TidemarkError", str(own), error=own), lost]) is own
    worker = Cause("org.apache.spark.api.python.PythonException", TRACE, "PYTHON_EXCEPTION")
    assert str(known_error([worker, lost])) == TRACE.splitlines()[4].removeprefix("conf.errors.TidemarkError: ")
    said = "RULE_STOPPED: rule x of t, partition 0, offset 1; change the rule"
    column = Cause("org.apache.spark.SparkRuntimeException", "", "USER_RAISED_EXCEPTION", {"errorMessage": said})
    assert str(known_error([ABORTED, column])) == said
    assert known_error([column._replace(parameters={"errorMessage": "a job's own words"})]) is None
