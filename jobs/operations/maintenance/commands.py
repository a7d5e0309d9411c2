"""Carries out the actions of `maintain`: compacts and vacuums tables, reports on ledgers, and calls `checkpoints`."""

import json
from argparse import Namespace
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from time import monotonic

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType
from pyspark.sql import SparkSession

from conf.errors import TidemarkError
from conf.setting_types import milliseconds
from conf.settings import Maintenance, Settings
from jobs import arguments, catalog
from jobs.connectors.causes import cause_line
from jobs.connectors.delta import maintenance as delta_maintenance
from jobs.connectors.delta.commit import RANGE
from jobs.connectors.delta.log import REPLAYS
from jobs.connectors.delta.maintenance import Files, say_single_driver
from jobs.connectors.exactly_once.ledger import SECONDS
from jobs.connectors.hadoop_files import Folders, Size
from jobs.connectors.kafka.access import Right, client_error
from jobs.connectors.spark_internals import silence_scala
from jobs.operations.maintenance.checkpoints import (
    CheckpointCleanup,
    CleanupReport,
    StateReport,
    days,
    find_checkpoints,
    megabytes,
    read_replays,
    state_reports,
)
from jobs.operations.replay.record import Replay
from jobs.pipeline import paths
from jobs.pipeline.monitoring import micro_batch_table
from jobs.pipeline.session import session

NOTHING_FOUND = {
    "tables": "there is no table",
    "checkpoints": "there is no checkpoint",
    "ledgers": "there is no ledger",
    "state": "no query keeps state",
}
MB = 1024 * 1024
LOG = "_delta_log"
SLACK = timedelta(hours=1)  # clock skew between machines, and between a version's commit and its time in the log
COMPACT = "compact"
POLICY = "cleanup.policy"


def main(words: Sequence[str]) -> int:
    """Carry out one action; return the exit code."""
    args = arguments.parse_maintain(words)
    settings = arguments.settings_of(args)
    with session(settings, f"maintain {args.action}", "maintenance") as spark:
        spark.conf.set("spark.sql.shuffle.partitions", settings.spark.shuffle_partitions)
        silence_scala(spark)
        return run(spark, settings, args)


def run(spark: SparkSession, settings: Settings, args: Namespace) -> int:
    """Carry out an action and print a line (or a JSON object) for each report; return the exit code."""
    has_failed, is_empty = False, True
    for report in reports(spark, settings, args):
        is_empty = False
        has_failed |= bool(getattr(report, "failed", "") or getattr(report, "problem", ""))
        for line in [json.dumps(asdict(report), default=datetime.isoformat)] if args.json else report.lines():
            print(line, flush=True)
    if is_empty and not args.json:
        print(NOTHING_FOUND[args.action])
    return 1 if has_failed else 0


def reports(spark: SparkSession, settings: Settings, args: Namespace) -> Iterable["Report"]:
    """Carry the action out, and give one report at a time."""
    if args.action == "state":
        return state_reports(spark, settings.paths.checkpoints)
    if args.action == "ledgers":
        return LedgerMaintenance(spark, settings).reports(args.remove, args.dry_run)
    replays = read_replays(spark, Folders(spark), settings.paths.tables)
    if args.action == "checkpoints":
        return CheckpointCleanup(spark, settings, replays, args.dry_run).reports()
    say_single_driver(spark, settings.paths.tables)
    return TableMaintenance(spark, settings, replays, args.dry_run).reports()


@dataclass(frozen=True)
class TableReport:
    """What was done to a table; `stored` counts everything in its folder, the log too.

    Args:
        compaction, vacuum: what was done, or why nothing was.
        failed: the cause, where something went wrong; empty otherwise.
    """

    table: str
    before: Files
    after: Files
    stored_before: Size
    stored_after: Size
    compaction: str
    vacuum: str
    seconds: float
    failed: str = ""

    def lines(self) -> Iterator[str]:
        if self.failed:
            yield f"{self.table:<28} FAILED {self.failed}"
            return
        files = f"files {self.before.count:,} -> {self.after.count:,}"
        stored = f"stored {megabytes(self.stored_before.bytes)} -> {megabytes(self.stored_after.bytes)}"
        yield f"{self.table:<28} {files}  {stored}  {self.compaction}; {self.vacuum}  {self.seconds:.1f} s"


class TableMaintenance:
    """Compacts and vacuums tables one by one: one that fails holds up no other, open replays keep what they need."""

    def __init__(self, spark: SparkSession, settings: Settings, replays: list[Replay], dry_run: bool) -> None:
        self._spark, self._root, self._limits = spark, settings.paths.tables, settings.maintenance
        self._settings = settings
        self._replays, self._dry_run = [replay for replay in replays if not replay.is_finished], dry_run
        self._folders = Folders(spark)

    def reports(self) -> Iterator[TableReport]:
        for name in table_names(self._folders, self._root):
            yield self._report(name)
        if self._folders.exists(f"{paths.table(self._root, paths.MICRO_BATCHES)}/{LOG}"):
            if not self._dry_run:
                age = timedelta(milliseconds=milliseconds(self._settings.history.keep))
                micro_batch_table.expire(self._settings, datetime.now(UTC) - age)
            yield self._report(paths.MICRO_BATCHES)

    def _report(self, name: str) -> TableReport:
        began, path = monotonic(), paths.table(self._root, name)
        before, stored = Files(0, 0, 0, 0), self._folders.size(path)
        try:
            before = self._files(path)
            compaction = self._compact(path, before)
            vacuum = self._vacuum(name, path)
            after, failed = self._files(path), ""
        except Exception as exc:
            compaction, vacuum, after, failed = "", "", before, cause_line(exc)
        seconds = round(monotonic() - began, 1)
        now = self._folders.size(path)
        return TableReport(name, before, after, stored, now, compaction, vacuum, seconds, failed)

    def _files(self, path: str) -> Files:
        return delta_maintenance.data_files(self._spark, path, self._limits.small_file_mb * MB)

    def _compact(self, path: str, files: Files) -> str:
        if files.crowd < self._limits.small_files:
            return f"left alone: {files.crowd} small files in a partition, {self._limits.small_files} are worth it"
        if self._dry_run:
            return f"would compact {files.small:,} small files"
        sizes = self._limits.small_file_mb * MB, self._limits.target_file_mb * MB
        compacted = delta_maintenance.compact(self._spark, path, *sizes)
        return "left alone: writers were in the way" if compacted is None else f"compacted {compacted:,} small files"

    def _vacuum(self, name: str, path: str) -> str:
        since = {
            replay.id: delta_maintenance.version_time(self._spark, path, replay.table_versions[name])
            for replay in self._replays
            if name in replay.table_versions
        }
        retention, why = longest_retention(
            self._limits,
            delta_maintenance.retention(self._spark, path),
            {id: time for id, time in since.items() if time},
            datetime.now(UTC),
        )
        is_checked = not self._limits.allow_short_keep
        count = delta_maintenance.vacuum(self._spark, path, retention, is_checked, self._dry_run)
        done = f"would vacuum {count:,} files" if self._dry_run else "vacuumed"
        # What the log has no version of is lost to the replay, whatever files are kept.
        lost = [
            f"; replay {id} needs a version that the log no longer has: abandon it" for id in since if not since[id]
        ]
        return f"{done}, kept {days(retention)} ({why}){''.join(lost)}"


def longest_retention(
    limits: Maintenance, of_table: timedelta, replays: dict[str, datetime], now: datetime
) -> tuple[timedelta, str]:
    """Return how long a table's removed files stay, and what asks for it.

    Args:
        of_table: the table's own retention, which `allow_short_keep` sets aside.
        replays: since when each open replay needs the table.
    """
    retentions = {"maintenance.keep": timedelta(milliseconds=milliseconds(limits.keep))}
    if not limits.allow_short_keep:
        retentions["the table's own retention"] = of_table
    retentions |= {f"replay {id}": now - since + SLACK for id, since in replays.items()}
    why = max(retentions, key=lambda name: retentions[name])
    return retentions[why], why


def table_names(folders: Folders, root: str, within: str = "") -> Iterator[str]:
    """Yield every Delta table under `root`, by its path there; tables of replays and of bounded ranges are left out."""
    entries = [entry for entry in folders.entries(f"{root}/{within}" if within else root) if entry.is_folder]
    if any(entry.name == LOG for entry in entries):
        yield within
        return
    for entry in entries:
        is_left_out = not within and (entry.name == REPLAYS or entry.name.startswith(RANGE))
        if not is_left_out and not entry.name.startswith((".", "_")):
            yield from table_names(folders, root, f"{within}/{entry.name}".lstrip("/"))


@dataclass(frozen=True)
class LedgerReport:
    """A ledger topic, and what uses it.

    Args:
        in_use: why its sink is taken to be there; empty where nothing speaks for it.
        problem: what is wrong with its settings; empty where nothing is.
    """

    topic: str
    partitions: int
    cleanup_policy: str
    in_use: str
    problem: str = ""
    removed: bool = False

    def lines(self) -> Iterator[str]:
        use = "removed" if self.removed else self.in_use or f"no job or checkpoint of its name: --remove {self.topic}"
        problem = f"  PROBLEM {self.problem}" if self.problem else ""
        yield f"{self.topic:<48} {self.partitions} partitions  {self.cleanup_policy}  {use}{problem}"


class LedgerMaintenance:
    """The ledgers of `ledger.application` on the cluster."""

    def __init__(self, spark: SparkSession, settings: Settings) -> None:
        self._application = settings.ledger.application
        self._connection = settings.kafka.client_config()
        self._admin = AdminClient({**self._connection, "log_level": 0})
        checkpoints = find_checkpoints(Folders(spark), settings.paths.checkpoints)
        self._queries = {checkpoint.query for checkpoint in checkpoints if not checkpoint.is_replaced}

    def reports(self, remove: Sequence[str], dry_run: bool) -> Iterator[LedgerReport]:
        """Report on every ledger; those of `remove` are deleted, unless their sink is there.

        Raises:
            TidemarkError: LEDGER_IN_USE or NO_LEDGER, before anything is deleted; KAFKA_FAILED.
        """
        try:
            ledgers = [self._report(topic, partitions) for topic, partitions in self._topics()]
            self._require_removable(ledgers, remove)
            if remove and not dry_run:
                for deletion in self._admin.delete_topics(list(remove)).values():
                    deletion.result(SECONDS)
        except KafkaException as exc:
            names = [topic for topic, _ in self._topics()]
            needed = [Right("topic", name, ("DescribeConfigs", "Describe")) for name in names]
            needed += [Right("topic", name, ("Delete", "Describe")) for name in remove]
            raise client_error("the ledgers", exc.args[0], needed, self._connection) from exc
        for ledger in ledgers:
            yield replace(ledger, removed=ledger.topic in remove and not dry_run)

    def _topics(self) -> list[tuple[str, int]]:
        topics = self._admin.list_topics(timeout=SECONDS).topics
        names = sorted(name for name in topics if ledger_sink(name, self._application) is not None)
        return [(name, len(topics[name].partitions)) for name in names]

    def _report(self, topic: str, partitions: int) -> LedgerReport:
        resource = ConfigResource(ResourceType.TOPIC, topic)
        described = self._admin.describe_configs([resource], request_timeout=SECONDS)[resource].result(SECONDS)
        policy = str(described[POLICY].value)
        problem = "" if policy == COMPACT else f"{POLICY} is {policy}: markers get lost, set it to {COMPACT}"
        sink = ledger_sink(topic, self._application) or ""
        use = use_of_sink(sink, self._queries, set(catalog.questions()))
        return LedgerReport(topic, partitions, policy, use, problem)

    def _require_removable(self, ledgers: list[LedgerReport], remove: Sequence[str]) -> None:
        by_name = {ledger.topic: ledger for ledger in ledgers}
        for topic in remove:
            if topic not in by_name:
                raise TidemarkError("NO_LEDGER", f"{topic} is no ledger of {self._application}", "see the list")
            if by_name[topic].in_use:
                what = f"the sink of {topic} is there: {by_name[topic].in_use}"
                remedy = "without its ledger it would stop by LEDGER_GAP; remove its checkpoint and its job first"
                raise TidemarkError("LEDGER_IN_USE", what, remedy)


def ledger_sink(topic: str, application: str) -> str | None:
    """Return the sink that a topic is the ledger of, without the application's name; None for other topics."""
    start, end = f"__{application}.", ".ledger"
    is_one = topic.startswith(start) and topic.endswith(end) and len(topic) > len(start) + len(end)
    return topic.removeprefix(start).removesuffix(end) if is_one else None


def use_of_sink(sink: str, queries: set[str], jobs: set[str]) -> str:
    """Say why a sink is taken to be there; empty where nothing speaks for it."""
    if sink.startswith("publish."):
        return "of `publish --exactly-once`, which has no checkpoint"
    if sink in queries:
        return "its query has a checkpoint"
    if any(sink == job or sink.startswith(f"{job}.") for job in jobs):
        return "its job is there"
    return ""


Report = TableReport | LedgerReport | CleanupReport | StateReport
