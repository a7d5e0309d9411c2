"""What signals do to a script that runs a session; whole jobs are stopped in `tests/test_spark_submit.py`."""

import json
import logging
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ecs_logging
import pytest

from conf import ROOT
from conf.errors import Interrupted
from jobs.pipeline import session
from jobs.pipeline.progress import offsets_of_batch
from jobs.pipeline.session import SAME_SIGNAL_SECONDS, SIGNALS, Labelling, _Stopping, labels_of, tell_batch
from local import jars, processes


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Is set where all was to end at once; the process's own handlers are put back."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    at_once = threading.Event()
    monkeypatch.setattr(_Stopping, "_end_at_once", lambda self: at_once.set())
    yield at_once
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_raises_its_echo_does_nothing_and_the_next_ends_all(
    number: int, ended: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("jobs.pipeline.session.time.monotonic", lambda: now)
    stopping = _Stopping(25)
    with pytest.raises(Interrupted) as raised:
        os.kill(os.getpid(), number)
    assert (raised.value.number, stopping.number) == (number, number)
    os.kill(os.getpid(), number)
    assert not ended.is_set()
    now += SAME_SIGNAL_SECONDS + 0.1
    os.kill(os.getpid(), number)
    assert ended.wait(5)


def test_a_stop_that_does_not_end_is_ended(ended: threading.Event) -> None:
    _Stopping(within=0.01)
    with pytest.raises(Interrupted):
        os.kill(os.getpid(), signal.SIGTERM)
    assert ended.wait(5)


OFFSETS = {"from": [{"departures": {"0": 3}}], "until": [{"departures": {"0": 9, "1": 4}}]}
LABELS = {"job": "j", "query": "j.q", "batch": "7", "offsets": "departures-0:3-9 departures-1:0-4"}


@pytest.fixture
def lines(tmp_path: Path) -> Any:
    """Gives what a logger, set up as a driver's is, has written so far."""
    path = tmp_path / "j.python.ecs.json"
    handler = logging.FileHandler(path)
    handler.setFormatter(ecs_logging.StdlibFormatter(extra={"service.name": "j"}))
    handler.addFilter(Labelling("j"))
    loggers = [logging.getLogger("tidemark.probe"), logging.getLogger(session.BATCHES)]
    for each in loggers:
        each.addHandler(handler)
        each.setLevel(logging.INFO)
    yield lambda: [json.loads(line) for line in path.read_text().splitlines()]
    for each in loggers:
        each.removeHandler(handler)
        each.setLevel(logging.NOTSET)
    handler.close()


def test_labels_name_the_batch_and_its_offsets() -> None:
    assert labels_of("j", "j.q", 7, offsets_of_batch(OFFSETS)) == LABELS


def test_a_line_of_python_has_the_labels_of_its_thread(lines: Any) -> None:
    probe = logging.getLogger("tidemark.probe")
    probe.warning("before")
    token = session._labels.set(LABELS)
    try:
        probe.error("within", exc_info=ValueError("why"))
    finally:
        session._labels.reset(token)
    before, within = lines()
    assert before["labels"] == {"job": "j"}
    assert within["labels"] == LABELS
    assert (within["log.level"], within["message"], within["log"]["logger"]) == ("error", "within", "tidemark.probe")
    assert within["error"]["message"] == "why"
    assert {"@timestamp", "ecs.version"} <= within.keys()


def test_the_end_of_a_batch_is_a_line_with_its_duration(lines: Any) -> None:
    spans = [{"topic": "departures", "partition": 0, "start": None, "end": 9}]
    row = {"job": "j", "query": "j.q", "batch": 7, "rows_in": 9, "rejected": 1, "offsets": spans}
    tell_batch(row | {"phases": {"triggerExecution": 1_500}})
    (line,) = lines()
    assert line["event"]["duration"] == 1_500_000_000
    assert line["labels"] == LABELS | {"offsets": "departures-0:0-9"}


PROGRAM = """import org.apache.logging.log4j.*;
public class Probe {
  public static void main(String[] words) {
    ThreadContext.put("job", "j"); ThreadContext.put("batch", "7");
    LogManager.getLogger("a.B").error("bad", new RuntimeException("one\\ntwo"));
  }
}
"""


@pytest.mark.slow
def test_a_line_of_the_jvm_is_one_json_object_with_labels(tmp_path: Path) -> None:
    source, log = tmp_path / "Probe.java", tmp_path / "j.ecs.json"
    source.write_text(PROGRAM)
    shipped = jars.spark_jars()
    logging = [str(jar) for kind in ("api", "core", "layout") for jar in shipped.glob(f"log4j-{kind}-*.jar")]
    options = [f"-Dlog4j2.configurationFile={ROOT}/conf/log4j2-ecs.properties", f"-Dtidemark.log={log}"]
    subprocess.run([processes.java(), *options, "-Dtidemark.job=j", "-cp", ":".join(logging), str(source)], check=True)
    (text,) = log.read_text().splitlines()
    line = json.loads(text)
    assert line["labels"] == {"job": "j", "batch": "7"}
    assert (line["log.level"], line["log.logger"], line["service.name"]) == ("ERROR", "a.B", "j")
    assert line["error.message"] == "one\ntwo"
    assert {"@timestamp", "ecs.version", "message", "error.stack_trace"} <= line.keys()
