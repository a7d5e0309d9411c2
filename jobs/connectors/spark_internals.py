"""Wraps what Spark and Delta do not publish: only here are private members of PySpark and classes of their JVM used.

A new version may not have them any more. `tests/jobs/connectors/test_spark_internals.py` has a case for each,
and names the versions that they were made for. What is handed out is thin: data of Python's, or the Java object whose
methods that test knows; what to make of it is decided elsewhere.
"""

import json
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from py4j.java_gateway import get_field, is_instance_of  # type: ignore[import-untyped]
from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark import SparkConf, SparkContext, inheritable_thread_target
from pyspark.errors.exceptions.captured import CapturedException
from pyspark.java_gateway import ensure_callback_server_started
from pyspark.sql import Column, DataFrame, Observation, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import vectorized_udf  # type: ignore[attr-defined]
from pyspark.sql.streaming.query import StreamingQuery
from pyspark.sql.types import StructType
from pyspark.util import PythonEvalType

# The node of a micro-batch's plan that reads its records.
MICRO_BATCH_SCAN = "MicroBatchScanExec"

# The JVM, and what it raised.


def jvm(spark: SparkSession) -> Any:
    """Return the JVM's packages by their names: of Java, and of libraries that publish what is asked of them."""
    return _Package(spark._jvm)


class _Package:
    """A package of the JVM; what begins in lower case is a package in it, all else a class.

    Py4J asks the JVM of each package whether it is a class, which takes a look into every jar: that was a twelfth of
    what a small micro-batch costs.
    """

    def __init__(self, classes: Any, name: str = "") -> None:
        self._classes, self._name = classes, name

    def __getattr__(self, part: str) -> Any:
        name = f"{self._name}.{part}" if self._name else part
        return _Package(self._classes, name) if part[0].islower() else getattr(self._classes, name)


TESTING = "pyspark.testing.utils"


class _Testing(ModuleType):
    """Stands in for TESTING, which is loaded once something is used that it defines itself."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # of modules, which `import` asks for
            raise AttributeError(name)
        if name.startswith("have_"):
            return find_spec(name.removeprefix("have_")) is not None
        if sys.modules.get(TESTING) is self:
            del sys.modules[TESTING]
        return getattr(import_module(TESTING), name)


def load_testing_late() -> None:
    """Keep `lit` from loading PySpark's tools for tests, which load pandas: it asks them whether there is numpy, and
    the first one of a process waits half a second."""
    sys.modules.setdefault(TESTING, _Testing(TESTING))


def submitted_conf() -> SparkConf:
    """Return the options that spark-submit was given, as the configuration of a context that is still to be made."""
    SparkContext._ensure_initialized()
    return SparkConf()


def hadoop_conf(spark: SparkSession) -> Any:
    """Return Hadoop's configuration with what this session says of it, file systems and credentials among that."""
    return spark._jsparkSession.sessionState().newHadoopConf()


def start_callback_server(spark: SparkSession) -> None:
    """Let the JVM call objects of Python's."""
    ensure_callback_server_started(spark.sparkContext._gateway)  # type: ignore[no-untyped-call]


def silence_scala(spark: SparkSession) -> None:
    """Send nowhere what Scala code prints: Delta tells the terminal what it has vacuumed."""
    nowhere = jvm(spark).java.io.PrintStream(jvm(spark).java.io.OutputStream.nullOutputStream())
    _object(jvm(spark).scala, "Console").setOutDirect(nowhere)


def java_exception(error: BaseException) -> Any:
    """Return the exception of Java's that PySpark or py4j raised `error` for; None for one of Python's own."""
    if isinstance(error, Py4JJavaError):
        return error.java_exception
    return error._origin if isinstance(error, CapturedException) else None


def is_instance(java: Any, name: str) -> bool:
    """Return whether an object of Java's is one of the class or interface of that name."""
    gateway: Any = SparkContext._gateway
    return bool(is_instance_of(gateway, java, name))


def query_exception(query: StreamingQuery) -> Any:
    """Return the Java exception that ended the query; None where it goes on, or ended well."""
    ended: Any = query._jsq.exception()
    return ended.get() if ended.isDefined() else None


def read_so_far(query: StreamingQuery) -> tuple[int, list[dict[str, Any]]]:
    """Return how many records the micro-batch that a query is at has read from Kafka, and what was observed in it.

    Both are sums over all that was computed of it, as in the progress that Spark reports at its end.
    """
    execution: Any = query._jsq.streamingQuery().lastExecution()
    leaves = listed(execution.executedPlan().collectLeaves())
    scans = [leaf for leaf in leaves if str(leaf.getClass().getSimpleName()) == MICRO_BATCH_SCAN]
    rows = listed(execution.observedMetrics().values().toSeq())
    observed = [dict(zip(row.schema().fieldNames(), listed(row.toSeq()), strict=True)) for row in rows]
    return sum(int(scan.metrics().apply("numOutputRows").value()) for scan in scans), observed


def is_observed(observation: Observation) -> bool:
    """Return whether an action has filled `observation` with what it counts;
    asking it for that would wait until one does."""
    java: Any = observation._jo
    # A merge into an empty table first joins with nothing: the optimizer removes the observed node.
    return bool(java.future().isCompleted()) and java.getRow().schema() is not None


def listed(seq: Any) -> list[Any]:
    """Return the items of a Scala sequence."""
    return [seq.apply(number) for number in range(seq.size())]


def _object(package: Any, name: str) -> Any:
    return getattr(package, f"{name}$").__getattr__("MODULE$")


def _map(spark: SparkSession, entries: Mapping[str, str]) -> Any:
    return jvm(spark).org.apache.spark.api.python.PythonUtils.toScalaMap(dict(entries))


# Sessions, and the threads that use them.


def task_slots(spark: SparkSession) -> int:
    """Return how many tasks the cluster, as it is now, runs at the same time."""
    context = spark.sparkContext._jsc.sc()
    return int(context.maxNumConcurrentTasks(context.resourceProfileManager().defaultResourceProfile()))


def in_parallel(spark: SparkSession, *actions: Callable[[], object]) -> None:
    """Run `actions` in threads that inherit this thread's Spark properties: a stop of the query reaches their jobs too.

    All are awaited; the first failure is raised.
    """
    with ThreadPoolExecutor(max_workers=max(1, len(actions))) as pool:
        threads = [inheritable_thread_target(spark)(partial(_with_session, spark, action)) for action in actions]
        futures = [pool.submit(thread) for thread in threads]
    for future in futures:
        future.result()


def require_session(spark: SparkSession) -> None:
    """Make `spark` this thread's active session in the JVM where there is none.

    Only threads that the JVM itself has begun inherit one. Delta asks for it in the middle of its work, as where it
    reads a checkpoint of a table whose newest version has no checksum.
    """
    sessions: Any = spark._get_j_spark_session_class(spark._jvm)
    if sessions.getActiveSession().isEmpty():
        sessions.setActiveSession(spark._jsparkSession)


def _with_session(spark: SparkSession, action: Callable[[], object]) -> None:
    sessions: Any = spark._get_j_spark_session_class(spark._jvm)
    # py4j may reuse a JVM thread in which another session is active.
    sessions.setActiveSession(spark._jsparkSession)
    action()


def cloned_session(spark: SparkSession) -> SparkSession:
    """Return a session of its own that begins with the settings of `spark`."""
    return SparkSession(spark.sparkContext, spark._jsparkSession.cloneSession())


@contextmanager
def configured(spark: SparkSession, conf: Mapping[str, str]) -> Iterator[None]:
    """Put `conf` in force for the block, and the session's own settings back afterwards."""
    before = {name: spark.conf.get(name, None) for name in conf}
    for name, value in conf.items():
        spark.conf.set(name, value)
    try:
        yield
    finally:
        for name, old in before.items():
            spark.conf.unset(name) if old is None else spark.conf.set(name, old)


# Columns, plans and the partitions of a frame.

ALWAYS = "(SPARK_PARTITION_ID() >= 0)"


def optimization_barrier(column: Column) -> Column:
    """Return `column`, which the optimizer neither moves nor copies."""
    return F.when(F.spark_partition_id() >= 0, column)


def is_optimization_barrier(expression: Any) -> bool:
    """Return whether a Catalyst `expression` is the condition of an `optimization_barrier`:
    it is true in every partition."""
    return str(expression.sql()) == ALWAYS


def map_in_arrow(frame: DataFrame, function: Callable[[Iterator[Any]], Iterator[Any]], schema: str) -> DataFrame:
    """Return `frame.mapInArrow`, which loads pandas to see that it is there:
    the first call of a process takes a second."""
    mapped = vectorized_udf(function, schema, PythonEvalType.SQL_MAP_ARROW_ITER_UDF)
    applied = mapped(*(frame[name] for name in frame.columns))
    return DataFrame(frame._jdf.mapInArrow(applied._jc, False, None), frame.sparkSession)


def nullable_schema(frame: DataFrame) -> StructType:
    """Return the columns of `frame`, all of which may be null, at any depth."""
    return StructType.fromJson(json.loads(frame._jdf.schema().asNullable().json()))


def analyzed_plan(frame: DataFrame) -> Any:
    """Return the analyzed plan of `frame`."""
    return frame._jdf.queryExecution().analyzed()


def nodes(plan: Any) -> Iterator[Any]:
    """Yield the nodes of a plan, each before what it takes in, from left to right, as Spark numbers them."""
    yield plan
    for child in listed(plan.children()):
        yield from nodes(child)


def attribute_id(attribute: Any) -> int:
    """Return the number that an attribute has throughout a plan, whatever it is called."""
    return int(attribute.exprId().id())


def interval_parts(interval: Any) -> tuple[int, int, int]:
    """Return months, days and microseconds of an interval in a plan."""
    months, days, microseconds = (int(get_field(interval, name)) for name in ("months", "days", "microseconds"))
    return months, days, microseconds


class PlanBuilder:
    """Makes nodes of Catalyst's plans, and frames of plans, in a session."""

    def __init__(self, spark: SparkSession) -> None:
        self._spark = spark
        catalyst = jvm(spark).org.apache.spark.sql.catalyst
        self._logical, self._expressions = catalyst.plans.logical, catalyst.expressions
        self._clock = catalyst.trees.TreePattern.CURRENT_LIKE()

    def frame(self, plan: Any) -> DataFrame:
        """Return the rows of an analyzed or optimized plan."""
        # Static: the session is a classic one.
        rows = jvm(self._spark).org.apache.spark.sql.classic.Dataset.ofRows(self._spark._jsparkSession, plan)
        return DataFrame(rows, self._spark)

    def optimized(self, plan: Any) -> Any:
        """Return an analyzed plan as this session's optimizer leaves it."""
        return self._spark._jsparkSession.sessionState().optimizer().execute(plan)

    def with_children(self, node: Any, children: Sequence[Any]) -> Any:
        """Return a node, or an expression, over other children."""
        return node.withNewChildren(self._seq(children))

    def project(self, columns: Sequence[Any], child: Any) -> Any:
        return self._logical.Project(self._seq(columns), child)

    def filter(self, condition: Any, child: Any) -> Any:
        return self._logical.Filter(condition, child)

    def expand(self, rows: Sequence[Sequence[Any]], output: Sequence[Any], child: Any) -> Any:
        return self._logical.Expand(self._seq([self._seq(row) for row in rows]), self._seq(output), child)

    def nothing(self, output: Any) -> Any:
        """Return a plan of no rows, with these attributes."""
        return self._logical.LocalRelation(output, self._seq([]), False, self._none())

    def alias(self, expression: Any, name: str, id: Any = None) -> Any:
        """Return a named expression, with a new id where it is given none."""
        id = id or self._expressions.NamedExpression.newExprId()
        return self._expressions.Alias(expression, name, id, self._seq([]), self._none(), self._seq([]))

    def options(self, options: Mapping[str, str]) -> Any:
        """Return the options of a source or sink."""
        return jvm(self._spark).org.apache.spark.sql.util.CaseInsensitiveStringMap(dict(options))

    def null(self, kind: Any) -> Any:
        return self._expressions.Literal(None, kind)

    def has_clock(self, tree: Any) -> bool:
        """Return whether a plan or expression reads the clock anywhere."""
        return bool(tree.containsPattern(self._clock))

    def batch_time(self, milliseconds: int, kind: Any) -> Any:
        """Return the clock of a micro-batch that was planned then, as Spark puts it into its plan."""
        zone = jvm(self._spark).scala.Option.apply(self._spark.conf.get("spark.sql.session.timeZone"))
        return self._expressions.CurrentBatchTimestamp(milliseconds, kind, zone).toLiteral()

    def _seq(self, items: Sequence[Any]) -> Any:
        return jvm(self._spark).PythonUtils.toSeq(list(items))

    def _none(self) -> Any:
        return jvm(self._spark).scala.Option.empty()


def without_source_options(frame: DataFrame, names: Collection[str]) -> DataFrame:
    """Return the rows of a stream whose sources do without the options of these `names`."""
    builder = PlanBuilder(frame.sparkSession)
    return builder.frame(_without_options(builder, analyzed_plan(frame), {name.lower() for name in names}))


def _without_options(builder: PlanBuilder, node: Any, names: Collection[str]) -> Any:
    children = listed(node.children())
    if children:
        return builder.with_children(node, [_without_options(builder, child, names) for child in children])
    if str(node.nodeName()) != "StreamingRelationV2":
        return node
    kept = {name: value for name, value in dict(node.extraOptions()).items() if name.lower() not in names}
    parts = [node.productElement(number) for number in range(node.productArity())]
    return node.copy(*parts[:3], builder.options(kept), *parts[4:])


STREAMING = "spark.sql.streaming"


def operators_above_sources(frame: DataFrame) -> list[Any]:
    """Return the physical operators of a stream that take in what its sources give, at any depth."""
    spark = cloned_session(frame.sparkSession)
    # Adaptive execution would hide the plan in a node of its own; the metadata needs a number of state partitions.
    for name, value in (("spark.sql.adaptive.enabled", "false"), (f"{STREAMING}.internal.stateStore.partitions", "1")):
        spark.conf.set(name, value)
    streaming = jvm(spark).org.apache.spark.sql.execution.streaming
    frozen = streaming.checkpointing.OffsetSeqMetadata.apply(offset_log_metadata(spark, 0, 0))
    streaming.checkpointing.OffsetSeqMetadata.setSessionConf(frozen, spark._jsparkSession.sessionState().conf())
    return _above_sources(_execution(spark, frame, "update", frozen, "none", 0).executedPlan())[0]


def _above_sources(node: Any) -> tuple[list[Any], bool]:
    """Return the operators of a tree that a source flows into, and whether there is one in it."""
    below = [_above_sources(child) for child in listed(node.children())]
    found = [operator for operators, _ in below for operator in operators]
    if any(has_source for _, has_source in below):
        return [node, *found], True
    return found, str(node.getClass().getSimpleName()) == "StreamingRelationExec"


# A private value of Scala's, under the name that Java has for it.
ALLOWED_OPERATORS = "org$apache$spark$sql$execution$streaming$runtime$RealTimeModeAllowlist$$allowedOperators"


def real_time_operators(spark: SparkSession) -> frozenset[str]:
    """Return the classes of the physical operators that Spark's real-time mode takes above a source."""
    runtime = jvm(spark).org.apache.spark.sql.execution.streaming.runtime
    names = getattr(_object(runtime, "RealTimeModeAllowlist"), ALLOWED_OPERATORS)()
    return frozenset(map(str, listed(names.toSeq())))


def kafka_ranges(frame: DataFrame) -> list[tuple[str, int, int] | None]:
    """Return the (topic-partition, first offset, end) that each Spark partition of a micro-batch is; None for one that
    is not a range of Kafka's."""
    # Narrow operations keep the source's own partition objects; a shuffle, a union or a coalesce has others.
    return [_kafka_range(partition) for partition in frame._jdf.queryExecution().toRdd().partitions()]


def _kafka_range(partition: Any) -> tuple[str, int, int] | None:
    if partition.getClass().getSimpleName() != "DataSourceRDDPartition":
        return None
    taken = partition.inputPartition()
    if not taken.isDefined() or taken.get().getClass().getSimpleName() != "KafkaBatchInputPartition":
        return None
    offsets = taken.get().offsetRange()
    return str(offsets.topicPartition().toString()), int(offsets.fromOffset()), int(offsets.untilOffset())


# What a task of a stateful operator is computed from: one partition of the state, and the input that belongs to it.
STATE_RDDS = ("StateStoreRDD", "StateStoreAwareZipPartitionsRDD")


def state_partitions(frame: DataFrame) -> int | None:
    """Return how many partitions of state the Spark partitions of a micro-batch are made of, each of its own; None
    where they are made of anything else: of no state, or of state behind a further shuffle, a union or a coalesce."""
    rdd = frame._jdf.queryExecution().toRdd()
    while rdd.getClass().getSimpleName() not in STATE_RDDS:
        parents = listed(rdd.dependencies())
        if len(parents) != 1 or parents[0].getClass().getSimpleName() != "OneToOneDependency":
            return None
        rdd = parents[0].rdd()
    return int(rdd.getNumPartitions())


# Checkpoints and state.


def offset_log_metadata(spark: SparkSession, watermark_ms: int, clock_ms: int) -> str:
    """Return the line of the offset log for a micro-batch with that watermark and clock,
    with the settings that it freezes."""
    metadata = jvm(spark).org.apache.spark.sql.execution.streaming.checkpointing.OffsetSeqMetadata
    return str(metadata.apply(watermark_ms, clock_ms, spark._jsparkSession.conf()).json())


def plan_micro_batch(spark: SparkSession, frame: DataFrame, mode: str, metadata: str, state: str, batch: int) -> None:
    """Do what Spark's micro-batch execution does for the first batch of a run, up to the plan.

    That writes the operators and schemas of the state into the folder `state`, or holds them against those there.

    Args:
        metadata: the line of the offset log, as `offset_log_metadata` gives it, whose settings `spark` takes over.

    Raises:
        Py4JJavaError, PySparkException: where Spark would not go on with the state that is there.
    """
    streaming = jvm(spark).org.apache.spark.sql.execution.streaming
    frozen = streaming.checkpointing.OffsetSeqMetadata.apply(metadata)
    session = spark._jsparkSession
    streaming.checkpointing.OffsetSeqMetadata.setSessionConf(frozen, session.sessionState().conf())
    _execution(spark, frame, mode, frozen, state, batch).executedPlan()


def _execution(spark: SparkSession, frame: DataFrame, mode: str, frozen: Any, state: str, batch: int) -> Any:
    """Return what plans a micro-batch of a stream; `frozen`: the metadata of the offset log."""
    runtime = jvm(spark).org.apache.spark.sql.execution.streaming.runtime
    return runtime.IncrementalExecution(
        spark._jsparkSession,
        frame._jdf.queryExecution().logical(),
        getattr(jvm(spark).org.apache.spark.sql.streaming.OutputMode, mode.capitalize())(),
        state,
        jvm(spark).java.util.UUID.randomUUID(),
        jvm(spark).java.util.UUID.randomUUID(),
        batch,
        jvm(spark).scala.Option.empty(),
        frozen,
        runtime.WatermarkPropagator.noop(),
        True,
        *(getattr(runtime.IncrementalExecution, f"$lessinit$greater$default${number}")() for number in (12, 13, 14)),
        False,
    )


def state_metadata(spark: SparkSession, checkpoint: str, batch: int) -> list[Any]:
    """Read what the checkpoint says of each stateful operator after `batch`: Spark's OperatorStateMetadata."""
    conf = jvm(spark).org.apache.spark.util.SerializableConfiguration(hadoop_conf(spark))
    readers = jvm(spark).org.apache.spark.sql.execution.datasources.v2.state.metadata
    return list(readers.StateMetadataPartitionReader(checkpoint, conf, batch).allOperatorStateMetadata())


def state_schemas(spark: SparkSession, stream: Any) -> list[Any]:
    """Return the column families in a schema file of a state store, an open stream of Java's:
    StateStoreColFamilySchema."""
    helper = jvm(spark).org.apache.spark.sql.execution.streaming.state
    reader = _object(helper, "SchemaHelper$SchemaReader")
    return listed(reader.createSchemaReader(stream.readUTF()).read(stream))


def decompressed(spark: SparkSession, stream: Any, codec: str) -> Any:
    """Return a stream of Java's with what `stream` holds, decompressed by one of Spark's codecs."""
    codecs = jvm(spark).org.apache.spark.io.CompressionCodec
    return codecs.createCodec(spark.sparkContext._jsc.sc().conf(), codec).compressedInputStream(stream)


# Delta tables.

EXPIRY_OF_IDS = "delta.setTransactionRetentionDuration"
# What Delta's MERGE puts beside the columns of table and source while it works, and then asks for by these names.
MERGE_COLUMNS = frozenset(
    {"_row_id_", "_file_name_", "_source_row_present_", "_target_row_present_", "_row_dropped_", "_condition_"}
    | {"_source_row_index", "_target_row_index_"}
)
# Identity hashes of Delta's own log objects, one a table, whose whole log was replayed.
REPLAYED: set[int] = set()


class DeltaSnapshot:
    """The newest version of the table at `path` as Delta itself knows it; `version` is -1 where there is no table."""

    def __init__(self, spark: SparkSession, path: str) -> None:
        require_session(spark)
        none, self._spark = jvm(spark).scala.Option.empty(), spark
        self._delta = jvm(spark).org.apache.spark.sql.delta
        self._log = self._delta.DeltaLog.forTable(spark._jsparkSession, path)
        self._snapshot = self._log.update(False, none, none)
        self.version = int(self._snapshot.version())

    def table_id(self) -> str:
        return str(self._snapshot.metadata().id())

    def schema(self) -> StructType:
        return StructType.fromJson(json.loads(self._snapshot.schema().json()))

    def properties(self) -> dict[str, str]:
        """Return the table's own properties."""
        return self._python(self._snapshot.metadata().configuration())

    def transaction(self, app_id: str) -> int | None:
        """Return the last version that `app_id` committed; None for none.

        Delta replays the whole log for it in a Spark job. So does the first question, which names a log that is
        damaged before a job writes. Later ones read each commit's checksum, which lists the ids, too.
        """
        log = int(jvm(self._spark).java.lang.System.identityHashCode(self._log))
        # An id that is not listed may still be in the log.
        listed_there = self._listed_in_checksum() if log in REPLAYED else {}
        if app_id in listed_there:
            return listed_there[app_id]
        recorded = self.transactions().get(app_id)
        REPLAYED.add(log)
        return recorded

    def _listed_in_checksum(self) -> dict[str, int]:
        """Return the last version of each application id, as the checksum of this version has them;
        empty without one."""
        checksum = self._snapshot.checksumOpt()
        # Where ids expire, the checksum still lists expired ones.
        if not checksum.isDefined() or self._snapshot.metadata().configuration().contains(EXPIRY_OF_IDS):
            return {}
        recorded = checksum.get().setTransactions()
        if not recorded.isDefined():
            return {}
        actions = json.loads(self._delta.util.JsonUtils.mapper().writeValueAsString(recorded.get()))
        return {action["appId"]: int(action["version"]) for action in actions}

    def transactions(self) -> dict[str, int]:
        """Return the last version that each application id committed."""
        return self._python(self._snapshot.transactions())

    def files(self) -> DataFrame:
        """Return the data files: columns `size` long, `partitionValues` map, and others of Delta's."""
        return DataFrame(self._snapshot.allFiles().toDF(), self._spark)

    def retention_ms(self) -> int:
        """Return how long the table wants removed files kept."""
        return int(self._delta.DeltaLog.tombstoneRetentionMillis(self._snapshot.metadata()))

    def commit_info(self, version: int) -> dict[str, Any] | None:
        """Return Delta's commitInfo of `version`, empty for a writer that left none;
        None where the log no longer has it."""
        conf = self._log.newDeltaHadoopConf()
        file = self._delta.util.FileNames.unsafeDeltaFile(self._log.logPath(), version)
        if not file.getFileSystem(conf).exists(file):
            return None
        info = self._delta.DeltaHistoryManager.getCommitInfoOpt(self._log.store(), file, conf)
        return dict(json.loads(info.get().json())["commitInfo"]) if info.isDefined() else {}

    def is_new(self) -> bool:
        """Return whether nothing was written since the table was created, and nothing with that."""
        return self.version == 0 and int(self._snapshot.numOfFiles()) == 0

    def append(self, frame: DataFrame, app_id: str, version: int, metadata: str, alone: bool = False) -> None:
        """Append `frame` and record `version` for `app_id` in one commit; nothing where that is recorded already.

        It does what Delta's own append with `txnAppId` and `txnVersion` does, whose look at what is recorded would
        replay the log.

        Args:
            metadata: what the commit says of itself.
            alone: fail, with Delta's ConcurrentAppendException, where others have written since this version.
        """
        recorded = self.transaction(app_id)
        if recorded is not None and recorded >= version:
            return
        none, some = jvm(self._spark).scala.Option.empty(), jvm(self._spark).scala.Option.apply
        options = {"txnAppId": app_id, "txnVersion": str(version), "userMetadata": metadata, "mergeSchema": "true"}
        session = self._spark._jsparkSession
        how = self._delta.DeltaOptions(_map(self._spark, options), session.sessionState().conf())
        mode = jvm(self._spark).org.apache.spark.sql.SaveMode.Append
        transaction = self._log.startTransaction(none, some(self._snapshot))
        # A commit of the same id that came between fails this one.
        transaction.readTxn().addOne(app_id)
        if alone:
            transaction.readWholeTable()
        columns = self._snapshot.metadata().partitionColumns()
        rows = self._log, mode, how, columns, _map(self._spark, {}), frame._jdf, none, none, False
        data = self._delta.commands.WriteIntoDelta(*rows).writeAndReturnCommitData(transaction, session, none, False)
        arguments = none, some(metadata), none, none, some(True), none, none
        operation = getattr(self._delta, "DeltaOperations$Write")(mode, some(columns), *arguments)
        transaction.commitIfNeeded(data.actions(), operation, data.stringTags())

    def replace_rows(
        self, frame: DataFrame, condition: str, version: int, metadata: str, recorded: tuple[str, int] | None = None
    ) -> int:
        """Swap the rows that meet the SQL `condition` for those of `frame`; return the new version.

        Args:
            version: that the swap is based on: Delta fails it where rows written since may meet the condition.
            metadata: what the commit says of itself.
            recorded: an application id and the version of it that the same commit records.
        """
        none, some = jvm(self._spark).scala.Option.empty(), jvm(self._spark).scala.Option.apply
        at = self._log.getSnapshotAt(version, none, none, False)
        session = self._spark._jsparkSession
        options = {"replaceWhere": condition, "userMetadata": metadata, "mergeSchema": "true"}
        if recorded:
            options |= {"txnAppId": recorded[0], "txnVersion": str(recorded[1])}
        how = self._delta.DeltaOptions(_map(self._spark, options), session.sessionState().conf())
        mode = jvm(self._spark).org.apache.spark.sql.SaveMode.Overwrite
        transaction = self._log.startTransaction(none, some(at))
        if recorded:
            # A commit of the same id that came between fails this one.
            transaction.readTxn().addOne(recorded[0])
        columns = at.metadata().partitionColumns()
        rows = self._log, mode, how, columns, _map(self._spark, {}), frame._jdf, none, none, False
        data = self._delta.commands.WriteIntoDelta(*rows).writeAndReturnCommitData(transaction, session, none, False)
        arguments = some(condition), some(metadata), none, none, none, none, none
        operation = getattr(self._delta, "DeltaOperations$Write")(mode, some(columns), *arguments)
        return int(transaction.commit(data.actions(), operation, data.stringTags()))

    def _python(self, entries: Any) -> dict[str, Any]:
        return dict(jvm(self._spark).scala.jdk.javaapi.CollectionConverters.asJava(entries))
