"""What a stop says has to go where topics are to be read again: all that the query writes, and nothing of others."""

from typing import Any, cast

import pytest

from conf.errors import TidemarkError
from jobs.pipeline.outputs import FunctionOutput, RowSelector
from jobs.pipeline.remedies import damage_error

NOBODY = cast(Any, None)
TABLES = tuple(map(RowSelector, ("bronze/t", "quarantine", "silver/t")))
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
