"""Makes the session of a script that spark-submit has started, with its logs, and ends it: at its end, or at a signal.

A signal to stop a job goes to the process that `./spark-submit.sh` has become, which is the JVM; a terminal signals the
script too. Left to itself, the JVM would stop the context while queries run.

Labels say of each log line, Python's and the JVM's, which job, query and micro-batch it belongs to. They are there
where `logging.format` is "ecs": JSON lines by the Elastic Common Schema. A thread that writes a batch keeps its labels
until its next batch, so that what Spark says of the batch's end has them too.
"""

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from contextvars import ContextVar
from pathlib import Path
from types import FrameType
from typing import Any

import ecs_logging
from pyspark import SparkConf, SparkContext
from pyspark.sql import SparkSession

from conf.errors import Interrupted, TidemarkError
from conf.sections import SPARK_SECRET
from conf.setting_types import milliseconds
from conf.settings import Settings, secret_variables
from jobs.connectors.spark_internals import jvm, load_testing_late, start_callback_server, submitted_conf
from jobs.pipeline.outputs import Batch
from jobs.pipeline.progress import offsets_of_batch

# The last is a terminal's that is closed.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# A terminal's Ctrl-C comes twice: to the script, and by way of the JVM.
SAME_SIGNAL_SECONDS = 1.0
# The variable by which an executor gets the secret that it shows the driver.
OF_EXECUTOR = "_SPARK_AUTH_SECRET"

BATCHES = "tidemark.batches"
PLAIN = "%(asctime)s %(levelname)s %(name)s: %(message)s"
TASKS = "mdc."  # local properties of that name become labels of the tasks' threads, by the whole name
NANOSECONDS = 1_000_000  # in a millisecond

logger = logging.getLogger(__name__)
batch_logger = logging.getLogger(BATCHES)
_labels: ContextVar[Mapping[str, str] | None] = ContextVar("labels", default=None)


@contextmanager
def session(settings: Settings, name: str, log: str) -> Iterator[SparkSession]:
    """Make a session that lasts as long as the block.

    One of SIGNALS, to this process or to the JVM, raises Interrupted in the block, once; what the block raises after
    that goes to the log. A second signal, or the end of `run.stop_within`, ends script and JVM at once.

    Args:
        name: the application's.
        log: the name of the log beside the JVM's, see `log_path`, which gets what libraries say.
    """
    log_to_file(settings, log_path(settings, log), name)
    logging.captureWarnings(True)
    stopping = _Stopping(milliseconds(settings.run.stop_within) / 1000)
    load_testing_late()
    conf = submitted_conf().setAppName(name)
    _complete(conf, settings)
    SparkContext.getOrCreate(conf)
    spark = SparkSession.builder.getOrCreate()
    try:
        hide_secrets(spark)
        # A file of JSON lines must hold nothing else.
        is_plain = settings.logging.format == "plain"
        errors = log_path(settings, log) if is_plain else Path(settings.paths.logs) / f"{log}.stderr.log"
        # Java threads and Python workers write on stderr: the terminal is for progress.
        java = jvm(spark).java
        java.lang.System.setErr(java.io.PrintStream(java.io.FileOutputStream(str(errors), True), True))
        stopping.listen(spark)
        yield spark
    except Exception:
        if stopping.number is None:
            raise
        logger.warning("raised after a signal", exc_info=True)
        raise Interrupted(stopping.number) from None
    finally:
        with suppress(Exception) if stopping.number else nullcontext():
            spark.stop()


def _complete(conf: SparkConf, settings: Settings) -> None:
    """Add what the settings say, where spark-submit's own options do not; raises TidemarkError BAD_SETTING."""
    for key, value in settings.spark.properties().items():
        conf.setIfMissing(key, value)
    is_standalone = (conf.get("spark.master") or "").startswith("spark://")
    if is_standalone and settings.spark.encryption and not conf.contains(SPARK_SECRET):
        remedy = "set TIDEMARK_SPARK__ENCRYPTION_SECRET, or ..._FILE to its file"
        raise TidemarkError("BAD_SETTING", "spark.encryption needs the secret of the standalone cluster", remedy)


def hide_secrets(spark: SparkSession) -> None:
    """Start Python workers without the secrets that stand in variables of this process, or of their executor."""
    spark.sparkContext.environment |= dict.fromkeys([*secret_variables(os.environ), OF_EXECUTOR], "")


def log_path(settings: Settings, log: str) -> Path:
    """Return where a script's own log lies, beside the JVM's."""
    return Path(settings.paths.logs) / f"{log}.python.{settings.logging.suffix}"


class Labelling(logging.Filter):
    """Adds `labels` to every record that passes: the job's, the thread's, and those that the record has already."""

    def __init__(self, job: str) -> None:
        super().__init__()
        self._job = job

    def filter(self, record: logging.LogRecord) -> bool:
        record.labels = {"job": self._job, **(_labels.get() or {}), **getattr(record, "labels", {})}
        return True


def log_to_file(settings: Settings, path: Path, job: str) -> None:
    """Let Python's log of this process go to `path`, in the format of the settings."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if settings.logging.format == "plain":
        logging.basicConfig(filename=path, level=logging.WARNING, format=PLAIN)
        return
    handler = logging.FileHandler(path)
    handler.setFormatter(ecs_logging.StdlibFormatter(extra={"service.name": job, "host.name": socket.gethostname()}))
    handler.addFilter(Labelling(job))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    # The ends of batches are for logs that are read together; for a plain log the table of micro-batches has them.
    batch_logger.setLevel(logging.INFO)


def label_batch(spark: SparkSession, settings: Settings, job: str, batch: Batch) -> None:
    """Label this thread, its JVM's and those of the tasks that it starts; nothing where logs are plain."""
    if settings.logging.format == "plain":
        return
    labels = labels_of(job, batch.sink, batch.version, offsets_of_batch(batch.offsets))
    _labels.set(labels)
    context = jvm(spark).org.apache.logging.log4j.ThreadContext
    for name, value in labels.items():
        context.put(name, value)
        spark.sparkContext.setLocalProperty(f"{TASKS}{name}", value)


def labels_of(job: str, query: str, batch: int, spans: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the labels of a micro-batch, texts all of them: `job`, `query`, `batch` and `offsets`; `spans`: as
    `offsets_of_batch` gives them; written as `TOPIC-PARTITION:FROM-UNTIL`, with blanks between them."""
    texts = (f"{span['topic']}-{span['partition']}:{span['start'] or 0}-{span['end']}" for span in spans)
    return {"job": job, "query": query, "batch": str(batch), "offsets": " ".join(texts)}


def tell_batch(row: Mapping[str, Any]) -> None:
    """Log the end of a micro-batch, with its labels and how long it took; `row`: of the table of micro-batches."""
    took = row["phases"].get("triggerExecution", 0)
    labels = labels_of(row["job"], row["query"], row["batch"], row["offsets"])
    fields = {"labels": labels, "event.duration": took * NANOSECONDS, "event.outcome": "success"}
    message = "batch %d of %s took %d ms: %d records, %d rejected"
    batch_logger.info(message, row["batch"], row["query"], took, row["rows_in"], row["rejected"], extra=fields)


class _Stopping:
    """The first signal raises in the main thread, the next one ends everything at once.

    Args:
        within: seconds after the first by which all has ended.

    Attributes:
        number: of the signal that came; None before.
    """

    def __init__(self, within: float) -> None:
        self.number: int | None = None
        self._within = within
        self._since = 0.0
        self._spark: SparkSession | None = None
        self._handle_here()

    def listen(self, spark: SparkSession) -> None:
        """Let the JVM pass its signals on, in place of shutting down."""
        self._spark = spark
        self._handle_here()  # the context has put a handler of its own in place
        start_callback_server(spark)
        signals = jvm(spark).sun.misc.Signal
        for number in SIGNALS:
            signals.handle(signals(number.name.removeprefix("SIG")), _PassedOn())

    def _handle_here(self) -> None:
        for number in SIGNALS:
            # Under nohup the end of the terminal ends nothing; the JVM, too, leaves that signal ignored.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._received)

    def _received(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.number is None:
            self.number, self._since = number, now
            timer = threading.Timer(self._within, self._end_at_once)
            timer.daemon = True
            timer.start()
            raise Interrupted(number)
        if now - self._since > SAME_SIGNAL_SECONDS:
            threading.Thread(target=self._end_at_once, daemon=True).start()

    def _end_at_once(self) -> None:
        code = 128 + (self.number or 0)
        with suppress(OSError):  # the terminal may be gone
            print("ended at once; the checkpoint is kept, a new run goes on", file=sys.stderr, flush=True)
        logger.warning("ended before the queries had stopped")
        if self._spark is not None:
            java = jvm(self._spark).java
            threading.Thread(target=java.lang.Runtime.getRuntime().halt, args=(code,), daemon=True).start()
            time.sleep(0.5)
        os._exit(code)


class _PassedOn:
    """A handler that the JVM calls with a signal it got."""

    def handle(self, received: Any) -> None:
        os.kill(os.getpid(), received.getNumber())

    class Java:
        implements = ("sun.misc.SignalHandler",)
