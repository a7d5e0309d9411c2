"""Makes the session of a script that spark-submit has started, and ends it: at its end, or in order at a signal.

A signal to stop a job goes to the process that `./spark-submit.sh` has become, which is the JVM; a terminal signals the
script too. Left to itself, the JVM would stop the context while queries run.
"""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from pyspark import SparkConf, SparkContext
from pyspark.sql import SparkSession

from conf.errors import Interrupted, TidemarkError
from conf.setting_types import milliseconds
from conf.settings import SPARK_SECRET, Settings, secret_variables
from jobs.connectors.spark_internals import jvm, load_testing_late, start_callback_server, submitted_conf
from jobs.pipeline.log_labels import log_to_file

# The last is a terminal's that is closed.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# A terminal's Ctrl-C comes twice: to the script, and by way of the JVM.
SAME_SIGNAL_SECONDS = 1.0
# The variable by which an executor gets the secret that it shows the driver.
OF_EXECUTOR = "_SPARK_AUTH_SECRET"

logger = logging.getLogger(__name__)


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
        _send_errors_to(spark, _errors_path(settings, log))
        stopping.listen(spark)
        yield spark
    except Exception:
        if stopping.number is None:
            raise
        logger.warning("raised after a signal", exc_info=True)
        raise Interrupted(stopping.number) from None
    finally:
        with suppress(Exception) if stopping.number else _unchanged():
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


@contextmanager
def _unchanged() -> Iterator[None]:
    yield


def log_path(settings: Settings, log: str) -> Path:
    """Return where a script's own log lies, beside the JVM's."""
    return Path(settings.paths.logs) / f"{log}.python.{settings.logging.suffix}"


def _errors_path(settings: Settings, log: str) -> Path:
    """Return the file that stderr goes to: a file of JSON lines must hold nothing else."""
    if settings.logging.format == "plain":
        return log_path(settings, log)
    return Path(settings.paths.logs) / f"{log}.stderr.log"


def _send_errors_to(spark: SparkSession, path: Path) -> None:
    """Send what Java threads and Python workers write on stderr to a file: the terminal is for progress."""
    java = jvm(spark).java
    file = java.io.FileOutputStream(str(path), True)
    java.lang.System.setErr(java.io.PrintStream(file, True))


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
