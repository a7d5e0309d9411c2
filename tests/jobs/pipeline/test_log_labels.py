"""Log lines by the Elastic Common Schema: what Python writes, and what the JVM writes by conf/log4j2-ecs.properties."""

import json
import logging
import subprocess
from pathlib import Path
from typing import Any

import ecs_logging
import pytest

from conf import ROOT
from jobs.pipeline import log_labels
from jobs.pipeline.log_labels import Labelling, labels_of, tell_batch
from local import jars, processes

OFFSETS = {"from": [{"departures": {"0": 3}}], "until": [{"departures": {"0": 9, "1": 4}}]}
LABELS = {"job": "j", "query": "j.q", "batch": "7", "offsets": "departures-0:3-9 departures-1:0-4"}


@pytest.fixture
def lines(tmp_path: Path) -> Any:
    """Gives what a logger, set up as a driver's is, has written so far."""
    path = tmp_path / "j.python.ecs.json"
    handler = logging.FileHandler(path)
    handler.setFormatter(ecs_logging.StdlibFormatter(extra={"service.name": "j"}))
    handler.addFilter(Labelling("j"))
    loggers = [logging.getLogger("tidemark.probe"), logging.getLogger(log_labels.BATCHES)]
    for each in loggers:
        each.addHandler(handler)
        each.setLevel(logging.INFO)
    yield lambda: [json.loads(line) for line in path.read_text().splitlines()]
    for each in loggers:
        each.removeHandler(handler)
        each.setLevel(logging.NOTSET)
    handler.close()


def test_labels_name_the_batch_and_its_offsets() -> None:
    assert labels_of("j", "j.q", 7, OFFSETS) == LABELS


def test_a_line_of_python_has_the_labels_of_its_thread(lines: Any) -> None:
    probe = logging.getLogger("tidemark.probe")
    probe.warning("before")
    token = log_labels._labels.set(LABELS)
    try:
        probe.error("within", exc_info=ValueError("why"))
    finally:
        log_labels._labels.reset(token)
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
