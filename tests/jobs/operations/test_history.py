"""What `local/tidemark history` shows of micro-batches, and which it leaves out; no JVM."""

import json
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from conf.errors import TidemarkError
from conf.settings import load
from jobs.operations import history
from jobs.pipeline.monitoring import micro_batch_table
from jobs.pipeline.monitoring.journal import ENDED, Journal

NOW = datetime.now(UTC)


@pytest.fixture
def sets(tmp_path: Path) -> list[str]:
    """The options that name a test's own folders, with three micro-batches of two jobs in them."""
    places = [f"paths.tables={tmp_path}/tables", f"paths.logs={tmp_path}/logs"]
    with closing(Journal(micro_batch_table.journal_folder(load("local", places)), "j")) as writer:
        for batch, (job, hours, error) in enumerate([("a", 9, None), ("a", 1, "DISK_FULL: no"), ("b", 8, None)]):
            row = {"job": job, "query": f"{job}.out", "run_id": "r", "batch": batch, "error": error, "rows_in": 1}
            row |= {"began_at": NOW - timedelta(hours=hours), "outcome": "failed" if error else "done"}
            writer.append(ENDED, row)
    return [word for place in places for word in ("--set", place)]


@pytest.mark.parametrize(
    ("words", "batches"),
    [
        ([], [0, 2, 1]),
        (["a"], [0, 1]),
        (["b.out"], [2]),
        (["--since", "2 hours"], [1]),
        (["--since", (NOW - timedelta(hours=8, minutes=30)).isoformat()], [2, 1]),
        (["--failed"], [1]),
        (["b", "--failed"], []),
    ],
)
def test_batches_are_chosen(
    words: list[str], batches: list[int], sets: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert history.main([*words, "--json", *sets]) == 0
    assert [json.loads(line)["batch"] for line in capsys.readouterr().out.splitlines()] == batches


def test_the_newest_are_shown_and_that_there_are_more(
    sets: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "SHOWN", 2)
    history.main(sets)
    heading, *rows, end = capsys.readouterr().out.splitlines()
    assert heading.split()[:4] == ["BEGAN", "QUERY", "BATCH", "OUTCOME"]
    assert [row.split()[2:4] for row in rows if not row.startswith(" ")] == [["b.out", "2"], ["a.out", "1"]]
    assert rows[-1].strip() == "DISK_FULL: no"
    assert end.startswith("these are the newest 2;")


def test_nothing_found_says_what_was_looked_for(sets: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    history.main(["b", "--failed", *sets])
    history.main(["ingest", *sets])
    said = ("no micro-batch of b failed or was killed\n", "no micro-batch of ingest is known\n")
    assert capsys.readouterr().out == "".join(said)


@pytest.mark.parametrize("name", ["a.uot", "", "ingst"])
def test_a_name_that_no_job_and_no_query_has_is_refused(name: str, sets: list[str]) -> None:
    with pytest.raises(TidemarkError, match=f"UNKNOWN_JOB: there is no job `{name}`"):
        history.main([name, *sets])


def test_one_batch_is_explained_or_said_to_be_unknown(sets: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert history.main(["explain", "a.out", "1", *sets]) == 0
    assert "error             DISK_FULL: no" in capsys.readouterr().out
    with pytest.raises(TidemarkError, match="UNKNOWN_BATCH"):
        history.main(["explain", "a.out", "7", *sets])


@pytest.mark.parametrize("since", ["200000 weeks", "0001-01-01T00:00+14:00", "9999-12-31T23:59-14:00", "soon", ""])
def test_a_time_that_is_none_is_refused_in_a_line(since: str, sets: list[str]) -> None:
    with pytest.raises(TidemarkError, match="BAD_ARGUMENTS: --since takes a duration or a time"):
        history.main(["--since", since, *sets])


def test_a_number_that_no_batch_has_is_wrong_usage(sets: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for number in (str(2**63), "9" * 5000, "-1", "x"):
        with pytest.raises(SystemExit) as stopped:
            history.main(["explain", "a.out", number, *sets])
        assert stopped.value.code == 2
        assert "argument batch" in capsys.readouterr().err
    with pytest.raises(TidemarkError, match="UNKNOWN_BATCH"):
        history.main(["explain", "a.out", str(2**63 - 1), *sets])


def test_a_damaged_table_of_micro_batches_is_named_in_a_line(sets: list[str]) -> None:
    settings = load("local", sets[1::2])
    micro_batch_table.fold(settings)
    [file] = Path(micro_batch_table.table_path(settings)).glob("*.parquet")
    file.unlink()
    for words in ([], ["--json"], ["explain", "a.out", "1"]):
        with pytest.raises(TidemarkError, match=f"DATA_FILE_LOST: the data file {file} is not there; .*begun anew"):
            history.main([*words, *sets])
