"""What a stop says has to go where topics are to be read again: all that the query writes, and nothing of others."""

from pathlib import Path
from typing import Any, cast

import pytest
from pyspark.sql import SparkSession

from conf.errors import TidemarkError
from conf.settings import load
from jobs.connectors.causes import Cause
from jobs.pipeline.errors import known_error
from jobs.pipeline.outputs import FunctionOutput, RowSelector
from jobs.pipeline.remedies import damage_error, new_topic_remedy, query_error
from jobs.pipeline.topic_sink import TopicOutput

NOBODY = cast(Any, None)
TABLES = tuple(map(RowSelector, ("bronze/t", "quarantine", "silver/t")))
TOPIC = TopicOutput(job="a", name="b", frame=NOBODY, topic="o", settings=load("local"))
INGEST = FunctionOutput(job="ingest", name="t", frame=NOBODY, function=print, tables=TABLES)


@pytest.mark.parametrize(
    ("code", "file", "more"),
    [
        ("TABLE_LOG_DAMAGED", "/t/silver/t/_delta_log/1.json", "together: /c, /t/bronze/t, /t/silver/t (its old rows"),
        ("TABLE_BEHIND", "/t/bronze/t", "together: /c, /t/bronze/t, /t/silver/t (its old rows"),
        ("DATA_FILE_DAMAGED", "/t/quarantine/a.parquet", "move the table away: it is begun anew"),
        ("DATA_FILE_DAMAGED", "/t/silver/planes/a.parquet", "delete that table and the checkpoint of the query that"),
        ("DISK_FULL", "/t", ""),
    ],
)
def test_what_has_to_go_is_what_the_damaged_file_is_a_part_of(code: str, file: str, more: str) -> None:
    stop = damage_error(NOBODY, INGEST, "/c", "/t", TidemarkError(code, f"{file} is lost", "restore it"))
    assert (stop.code, stop.message) == (code, f"{file} is lost")
    assert stop.remedy.startswith("restore it; " if more else "restore it")
    assert more in stop.remedy


def test_a_file_that_was_not_found_and_is_there_is_not_deleted(spark: SparkSession, tmp_path: Path) -> None:
    file = tmp_path / "silver" / "t" / "part-0.parquet"
    file.parent.mkdir(parents=True)
    stop = known_error([Cause("java.io.FileNotFoundException", f"File file:{file} does not exist")])
    assert stop is not None
    assert "delete" in str(damage_error(spark, INGEST, "/c", str(tmp_path), stop))
    file.write_text("rows")
    found = str(damage_error(spark, INGEST, "/c", str(tmp_path), stop))
    assert found.startswith(f"FILE_UNREADABLE: {file} cannot be opened: it was not found") and "delete" not in found


def test_lost_records_and_a_recreated_topic_have_a_way_on_that_suits_what_the_query_writes() -> None:
    lost = TidemarkError("DATA_LOST", "they are gone", "give it a longer retention")
    settings = load("local")
    publishing, ingest = (query_error(NOBODY, settings, output, "/c", lost) for output in (TOPIC, INGEST))
    assert "--until-caught-up --skip-lost" in publishing.remedy and "delete" not in publishing.remedy
    assert "--until-caught-up --skip-lost" in ingest.remedy and "delete all of the query together: /c" in ingest.remedy
    assert "--skip-lost" in new_topic_remedy(TOPIC, "/c", "/t")
    assert new_topic_remedy(INGEST, "/c", "/t").startswith(
        "to read the topics again, delete all of the query together: /c"
    )
    behind = damage_error(NOBODY, TOPIC, "/c", "/t", TidemarkError("TABLE_LOG_DAMAGED", "x is lost", "restore it"))
    assert "another name" in behind.remedy or "without one" in behind.remedy
