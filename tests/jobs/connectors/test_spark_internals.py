"""What `spark_internals` uses of Spark and Delta is there: one case for each private class, method and member.

It was written for the versions below. With an upgrade this file says what has gone or takes other arguments; once all
cases hold again, let VERSIONS name the new ones.
"""

import ast
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyspark import SparkContext
from pyspark.errors.exceptions.captured import CapturedException
from pyspark.sql import DataFrame, Observation, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, LongType, StructField, StructType

from jobs.connectors import spark_internals
from jobs.connectors.delta import table as delta_table
from jobs.connectors.delta.table import Table
from schemas.spark_limits import READER_COLUMNS, is_reserved
from tests.jobs.connectors.delta.delta_tables import batch as numbered

VERSIONS = {"pyspark": "4.2.0", "delta-spark": "4.4.0"}
ROOT = Path(__file__).resolve().parents[3]
SPARK = "org.apache.spark"
SQL, CATALYST = f"{SPARK}.sql", f"{SPARK}.sql.catalyst"
PLANS, EXPRESSIONS = f"{CATALYST}.plans.logical", f"{CATALYST}.expressions"
STREAMING, SOURCES = f"{SQL}.execution.streaming", f"{SQL}.execution.datasources.v2"
DELTA = f"{SQL}.delta"
NEW = "<init>"

# Of a class: each method with the number of its arguments.
METHODS: dict[str, tuple[str, ...]] = {
    # Scala's own, where Spark's answers are made of them.
    "scala.Option": ("isDefined/0", "get/0", "empty/0", "apply/1"),
    "scala.collection.immutable.Seq": ("apply/1", "size/0", "isEmpty/0", "head/0", "mkString/1"),
    "scala.collection.immutable.Map": ("get/1",),
    "scala.Console$": ("setOutDirect/1",),
    "scala.jdk.javaapi.CollectionConverters": ("asJava/1",),
    f"{SPARK}.api.python.PythonUtils": ("toScalaMap/1", "toSeq/1"),
    f"{SPARK}.SparkThrowable": ("getCondition/0", "getMessageParameters/0"),
    # Sessions and queries.
    f"{SQL}.classic.SparkSession": (
        *("getActiveSession/0", "setActiveSession/1", "cloneSession/0", "sessionState/0", "conf/0"),
    ),
    f"{SQL}.internal.SessionState": ("newHadoopConf/0", "optimizer/0", "conf/0"),
    f"{SQL}.classic.Dataset": ("ofRows/2", "queryExecution/0", "schema/0", "toDF/0"),
    f"{SQL}.execution.QueryExecution": ("analyzed/0", "logical/0", "toRdd/0", "executedPlan/0", "observedMetrics/0"),
    f"{SQL}.classic.StreamingQuery": (),
    f"{SQL}.streaming.StreamingQuery": ("exception/0",),
    f"{STREAMING}.runtime.StreamingQueryWrapper": ("streamingQuery/0",),
    f"{STREAMING}.runtime.StreamExecution": ("lastExecution/0",),
    f"{SOURCES}.{spark_internals.MICRO_BATCH_SCAN}": ("metrics/0", "collectLeaves/0"),
    f"{SQL}.Observation": ("future/0", "getRow/0"),
    f"{SQL}.types.StructType": ("asNullable/0", "json/0"),
    # Plans.
    f"{CATALYST}.trees.TreeNode": (*("nodeName/0", "children/0", "withNewChildren/1", "containsPattern/1"),),
    f"{CATALYST}.trees.TreePattern": ("CURRENT_LIKE/0",),
    f"{CATALYST}.plans.QueryPlan": ("expressions/0", "output/0"),
    f"{CATALYST}.rules.RuleExecutor": ("execute/1",),
    f"{PLANS}.LogicalPlan": ("isStreaming/0",),
    f"{PLANS}.Project": (f"{NEW}/2", "projectList/0", "child/0"),
    f"{PLANS}.Filter": (f"{NEW}/2", "condition/0", "child/0"),
    f"{PLANS}.Expand": (f"{NEW}/3", "projections/0", "child/0"),
    f"{PLANS}.LocalRelation": (f"{NEW}/4",),
    f"{PLANS}.Aggregate": ("groupingExpressions/0", "aggregateExpressions/0"),
    f"{PLANS}.Deduplicate": ("keys/0",),
    f"{PLANS}.DeduplicateWithinWatermark": ("keys/0",),
    f"{PLANS}.EventTimeWatermark": ("delay/0",),
    f"{PLANS}.CollectMetrics": ("name/0",),
    f"{PLANS}.FlatMapGroupsWithState": ("timeout/0",),
    f"{PLANS}.FlatMapGroupsInPandasWithState": ("timeout/0",),
    f"{PLANS}.TransformWithState": (),
    f"{PLANS}.TransformWithStateInPySpark": (),
    f"{PLANS}.Distinct": (),
    f"{PLANS}.GlobalLimit": (),
    f"{PLANS}.Generate": (),
    f"{PLANS}.SubqueryAlias": (),
    f"{PLANS}.ResolvedHint": (),
    f"{PLANS}.Sort": (),
    f"{PLANS}.Join": (),
    f"{PLANS}.Union": (),
    f"{PLANS}.Window": (),
    f"{CATALYST}.streaming.StreamingRelationV2": (
        *("extraOptions/0", "sourceName/0", "copy/9", "productElement/1", "productArity/0"),
    ),
    f"{STREAMING}.runtime.StreamingRelation": ("dataSource/0",),
    f"{SQL}.execution.datasources.DataSource": ("options/0",),
    f"{EXPRESSIONS}.Expression": ("deterministic/0", "sql/0", "dataType/0"),
    f"{EXPRESSIONS}.NamedExpression": ("exprId/0", "name/0", "metadata/0", "newExprId/0"),
    f"{EXPRESSIONS}.ExprId": ("id/0",),
    f"{EXPRESSIONS}.Alias": (f"{NEW}/6", "child/0"),
    f"{EXPRESSIONS}.AttributeReference": (),
    f"{EXPRESSIONS}.GetStructField": ("extractFieldName/0", "child/0"),
    f"{EXPRESSIONS}.Literal": (f"{NEW}/2", "value/0"),
    # A window of event time is read out of the arithmetic that the analyzer makes of it.
    f"{EXPRESSIONS}.CreateNamedStruct": ("valExprs/0",),
    f"{EXPRESSIONS}.Add": ("right/0",),
    f"{EXPRESSIONS}.Subtract": ("left/0", "right/0"),
    f"{EXPRESSIONS}.CaseWhen": ("elseValue/0",),
    f"{EXPRESSIONS}.Remainder": ("right/0",),
    f"{EXPRESSIONS}.CurrentBatchTimestamp": (f"{NEW}/3", "toLiteral/0"),
    f"{EXPRESSIONS}.CurrentTimestamp": (),
    f"{EXPRESSIONS}.CurrentDate": (),
    f"{EXPRESSIONS}.LocalTimestamp": (),
    f"{EXPRESSIONS}.Now": (),
    # Where a batch of Kafka's lies.
    f"{SQL}.execution.datasources.v2.DataSourceRDDPartition": (),
    f"{SQL}.kafka010.KafkaBatchInputPartition": ("offsetRange/0",),
    f"{SQL}.kafka010.KafkaOffsetRange": ("topicPartition/0", "fromOffset/0", "untilOffset/0"),
    # What a partition of a stateful query is made of.
    f"{SPARK}.rdd.RDD": ("dependencies/0", "getNumPartitions/0"),
    f"{SPARK}.OneToOneDependency": ("rdd/0",),
    f"{STREAMING}.state.StateStoreRDD": (),
    f"{STREAMING}.operators.stateful.join.StreamingSymmetricHashJoinHelper$StateStoreAwareZipPartitionsRDD": (),
    # Checkpoints and state.
    f"{STREAMING}.checkpointing.OffsetSeqMetadata": ("apply/1", "apply/3", "json/0", "setSessionConf/2"),
    f"{STREAMING}.runtime.IncrementalExecution": (f"{NEW}/15", "executedPlan/0"),
    f"{STREAMING}.runtime.WatermarkPropagator": ("noop/0",),
    # What real-time mode takes.
    f"{STREAMING}.runtime.RealTimeModeAllowlist$": (f"{spark_internals.ALLOWED_OPERATORS}/0",),
    f"{STREAMING}.runtime.StreamingRelationExec": (),
    f"{SPARK}.SparkContext": ("maxNumConcurrentTasks/1", "resourceProfileManager/0"),
    f"{SPARK}.resource.ResourceProfileManager": ("defaultResourceProfile/0",),
    f"{SOURCES}.state.metadata.StateMetadataPartitionReader": (f"{NEW}/3", "allOperatorStateMetadata/0"),
    f"{STREAMING}.state.OperatorStateMetadata": ("version/0", "operatorInfo/0"),
    f"{STREAMING}.state.OperatorStateMetadataV1": ("stateStoreInfo/0",),
    f"{STREAMING}.state.OperatorStateMetadataV2": ("stateStoreInfo/0", "operatorPropertiesJson/0"),
    f"{STREAMING}.state.OperatorInfo": ("operatorId/0", "operatorName/0"),
    f"{STREAMING}.state.StateStoreMetadata": ("storeName/0", "numPartitions/0"),
    f"{STREAMING}.state.SchemaHelper$SchemaReader$": ("createSchemaReader/1",),
    f"{STREAMING}.state.StateStoreColFamilySchema": ("colFamilyName/0", "keySchema/0", "valueSchema/0"),
    f"{STREAMING}.state.HDFSBackedStateStoreProvider": (),
    f"{STREAMING}.state.RocksDBStateStoreProvider": (),
    f"{SPARK}.util.SerializableConfiguration": (f"{NEW}/1",),
    f"{SPARK}.io.CompressionCodec": ("createCodec/2", "compressedInputStream/1"),
    f"{SPARK}.api.python.PythonWorkerFactory": (),  # in the stacks of workers that did not start
    # Delta.
    f"{DELTA}.DeltaLog": (
        *("forTable/2", "update/3", "logPath/0", "store/0", "newDeltaHadoopConf/0", "getSnapshotAt/4"),
        *("startTransaction/2", "tombstoneRetentionMillis/1"),
    ),
    f"{DELTA}.Snapshot": ("numOfFiles/0", "version/0", "metadata/0", "schema/0", "transactions/0", "allFiles/0"),
    f"{DELTA}.actions.Metadata": ("id/0", "configuration/0", "partitionColumns/0"),
    f"{DELTA}.actions.CommitInfo": ("json/0",),
    f"{DELTA}.util.FileNames": ("unsafeDeltaFile/2",),
    f"{DELTA}.DeltaHistoryManager": ("getCommitInfoOpt/3",),
    f"{DELTA}.DeltaOptions": (f"{NEW}/2",),
    f"{DELTA}.commands.WriteIntoDelta": (f"{NEW}/9", "writeAndReturnCommitData/4"),
    f"{DELTA}.OptimisticTransaction": ("commit/3", "readTxn/0", "readWholeTable/0"),
    f"{DELTA}.DeltaOperations$Write": (f"{NEW}/9",),
}
# Of PySpark: what instances of its classes keep for themselves.
MEMBERS = (
    (SparkSession, ("_jvm", "_jsparkSession", "_get_j_spark_session_class")),
    (SparkContext, ("_gateway", "_jsc")),
)
PRIVATE = {"_jvm", "_jdf", "_jsparkSession", "_jsq", "_jo", "_jsc", "_jc", "_gateway", "_get_j_spark_session_class"}


def cases() -> Iterator[tuple[str, str]]:
    for name, methods in METHODS.items():
        yield from ((name, method) for method in methods or ("",))


def test_the_versions_are_those_that_the_cases_were_made_for() -> None:
    assert {package: version(package) for package in VERSIONS} == VERSIONS


@pytest.mark.parametrize(("name", "method"), cases())
def test_a_private_class_has_the_method(name: str, method: str, spark: SparkSession) -> None:
    java: Any = spark_internals.jvm(spark).java
    loaded = java.lang.Thread.currentThread().getContextClassLoader().loadClass(name)
    called, _, arguments = method.partition("/")
    members = loaded.getConstructors() if called == NEW else loaded.getMethods()
    takes = {len(each.getParameterTypes()) for each in members if called in (NEW, str(each.getName()))}
    assert not method or int(arguments) in takes, takes


@pytest.mark.parametrize(("cls", "names"), MEMBERS)
def test_pyspark_keeps_the_private_members(cls: type, names: tuple[str, ...], spark: SparkSession) -> None:
    of = spark if cls is SparkSession else spark.sparkContext
    assert [name for name in names if not hasattr(of, name)] == []


def test_what_java_raised_is_behind_what_pyspark_raises(spark: SparkSession) -> None:
    with pytest.raises(CapturedException) as raised:
        spark.sql("SELECT 1 FROM nowhere").collect()
    java = spark_internals.java_exception(raised.value)
    assert str(java.getClass().getSimpleName()) == "ExtendedAnalysisException"
    assert spark_internals.is_instance(java, "org.apache.spark.SparkThrowable")
    assert not spark_internals.is_instance(java, "java.io.IOException")
    assert spark_internals.java_exception(OSError()) is None


def test_an_observation_is_filled_by_the_first_action(spark: SparkSession) -> None:
    observation = Observation()
    frame = spark.range(3).observe(observation, F.count("*").alias("rows"))
    assert not spark_internals.is_observed(observation)
    frame.collect()
    assert spark_internals.is_observed(observation)


MERGE, PARQUET, DELTA_PARQUET, CATALYST_PLAN = (
    *(f"{DELTA}.commands.MergeIntoCommandBase", f"{SQL}.execution.datasources.parquet.ParquetFileFormat"),
    *(f"{DELTA}.DeltaParquetFileFormat", f"{CATALYST}.plans.QueryPlan"),
)


def names_in_jar_of(cls: str, spark: SparkSession, within: str = "") -> set[str]:
    """The texts that look like a column that nobody else has, in the classes beside `cls` whose paths hold `within`;
    \\1 stands for what is put into a text when it is used."""
    java: Any = spark_internals.jvm(spark).java
    loaded = java.lang.Thread.currentThread().getContextClassLoader().loadClass(cls)
    jar = zipfile.ZipFile(loaded.getProtectionDomain().getCodeSource().getLocation().getPath())
    classes = [jar.read(name) for name in jar.namelist() if name.endswith(".class") and re.search(within, name)]
    # In a class file a constant text has its length in two bytes before it.
    return {
        text.decode()
        for read in classes
        for length, text in re.findall(rb"\x01\x00(.)(_+[a-z]+(?:_[a-z]*)+\x01?)", read, re.DOTALL)
        if length[0] == len(text)
    }


def test_the_columns_of_deltas_merge_are_those_that_are_kept_out_of_its_way(spark: SparkSession) -> None:
    assert names_in_jar_of(MERGE, spark, r"/commands/(merge/|MergeInto)") == spark_internals.MERGE_COLUMNS


def test_the_columns_that_readers_of_tables_fill_in_are_those_that_no_event_may_have(spark: SparkSession) -> None:
    internal = {name for name in names_in_jar_of(DELTA_PARQUET, spark) if name.startswith("__delta_internal_")}
    assert names_in_jar_of(PARQUET, spark, "/parquet/ParquetFileFormat") == {"_tmp_metadata_\1"}
    parquet: Any = spark_internals.jvm(spark).org.apache.spark.sql.execution.datasources.parquet
    index = str(parquet.ParquetFileFormat.ROW_INDEX_TEMPORARY_COLUMN_NAME())
    assert {*internal, index} == READER_COLUMNS


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["long", "string"])
def test_a_table_takes_columns_of_all_other_names_that_spark_and_delta_have(
    kind: str, spark: SparkSession, tmp_path: Path
) -> None:
    found = set[str]().union(*(names_in_jar_of(cls, spark) for cls in (MERGE, PARQUET, CATALYST_PLAN)))
    names = sorted({name.replace("\1", "x") for name in found} - spark_internals.MERGE_COLUMNS - READER_COLUMNS)
    assert {"_change_type", "__row_id", "_input_file_name_"} <= {*names}
    names = ["_metadata", *(name for name in names if not is_reserved(name))]

    def rows(*ids: int) -> DataFrame:
        values = [(number, *(str(100 * number + at) for at in range(len(names)))) for number in ids]
        text = spark.createDataFrame(values, ["id", *names])
        return text.select("id", *(F.col(f"`{name}`").cast(kind) for name in names))

    for table in (Table("appended", str(tmp_path / "appended")), Table("merged", str(tmp_path / "merged"), ("id",))):
        delta_table.write(rows(0, 1, 2), table, numbered(0))
        delta_table.write(rows(3, 4), table, numbered(1))
        held = delta_table.read(spark, table.path)
        assert sorted(held.select("id", *(f"`{name}`" for name in names)).collect()) == sorted(
            rows(0, 1, 2, 3, 4).collect()
        )


def test_columns_may_be_null_at_any_depth_where_that_is_asked(spark: SparkSession) -> None:
    frame = spark.range(1).select(F.array("id").alias("ids"))
    assert spark_internals.nullable_schema(frame) == StructType([StructField("ids", ArrayType(LongType()))])


def test_a_function_on_arrow_gives_what_pysparks_own_way_gives(spark: SparkSession) -> None:
    def doubled(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield pa.RecordBatch.from_arrays([pa.array([2 * n for n in batch["id"].to_pylist()])], ["id"])

    frame = spark.range(5)
    own, pysparks = spark_internals.map_in_arrow(frame, doubled, "id long"), frame.mapInArrow(doubled, "id long")
    assert own.schema == pysparks.schema
    assert sorted(own.collect()) == sorted(pysparks.collect()) == [(2 * n,) for n in range(5)]


def test_a_barrier_is_known_by_its_condition(spark: SparkSession) -> None:
    guarded = spark.range(1).select(spark_internals.optimization_barrier(F.rand(1)).alias("x"))
    (column,) = spark_internals.listed(spark_internals.analyzed_plan(guarded).projectList())
    branch = column.child().branches().head()
    assert spark_internals.is_optimization_barrier(branch._1())
    assert not spark_internals.is_optimization_barrier(branch._2())


LIT = """
import sys
from jobs.connectors.spark_internals import load_testing_late, map_in_arrow
load_testing_late()
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
frame = SparkSession.builder.master("local[1]").getOrCreate().range(1).select(F.lit(5).alias("n"), F.lit(None))
print(frame.collect()[0].n, map_in_arrow(frame, lambda batches: batches, "n int").columns, "pandas" in sys.modules)
from pyspark.testing import assertDataFrameEqual
assertDataFrameEqual(frame, frame)
print(assertDataFrameEqual.__module__, sys.modules["pyspark.testing.utils"].have_pandas)
"""


@pytest.mark.slow
def test_a_literal_and_a_function_on_arrow_load_no_pandas_and_tools_for_tests_are_there_when_they_are_used() -> None:
    done = subprocess.run([sys.executable, "-c", LIT], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["5 ['n'] False", "pyspark.testing.utils True"]


def test_no_other_module_asks_for_private_members() -> None:
    asking = {
        f"{path.relative_to(ROOT)}:{node.lineno} {node.attr}"
        for folder in ("conf", "schemas", "jobs", "producers", "local", "notebooks", "bench")
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "spark_internals.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in PRIVATE
    }
    assert asking == set()
