"""A table's log says which offsets it holds, by its newest commits alone."""

from pathlib import Path

import pytest

from jobs.connectors.delta.log import DeltaLog, tables_under
from jobs.connectors.files import table_uri
from jobs.operations.coverage.query_offsets import Span
from jobs.operations.coverage.tables import ReplacedRows, TableCoverage, table_coverage
from tests.jobs.operations.coverage.holdings import Holdings

TABLE = "bronze/t"


def spans(coverage: TableCoverage) -> list[Span]:
    return [span for chain in coverage.chains for span in chain.spans]


def clean_log(holdings: Holdings, table: str, before: int) -> None:
    for file in (Path(holdings.path(table)) / "_delta_log").glob("*.json"):
        if int(file.stem) < before:
            file.unlink()


def test_a_table_may_be_named_by_a_uri(holdings: Holdings) -> None:
    holdings.batches("t", {0: 3})
    assert table_coverage(f"file:{holdings.path(TABLE)}").chains[0].spans == (Span("t", 0, 0, 3),)
    assert tables_under(f"file:{holdings.folder}/tables") == [TABLE]


def test_where_there_is_no_table_nothing_is_covered(holdings: Holdings) -> None:
    coverage = holdings.coverage(TABLE)
    assert (coverage.version, coverage.chains) == (-1, ())
    assert tables_under(str(holdings.folder / "tables")) == []


def test_a_table_holds_what_its_batches_took_from_the_first_on(holdings: Holdings) -> None:
    holdings.batches("t", {0: 3, 1: 2}, {0: 5, 1: 4}, start={0: 1, 1: 0})
    (chain,) = holdings.coverage(TABLE).chains
    assert chain.spans == (Span("t", 0, 1, 5), Span("t", 1, 0, 4))
    assert (chain.key, chain.newest.batch, chain.commits, chain.newest.version) == (
        ("ingest.t", "q1", "bronze"),
        1,
        2,
        1,
    )
    assert tables_under(str(holdings.folder / "tables")) == [TABLE]


@pytest.mark.parametrize("verify", [True, False])
def test_of_a_log_that_was_cleaned_the_newest_commit_tells_all(verify: bool, holdings: Holdings) -> None:
    holdings.batches("t", *({0: 2 * n} for n in range(1, 13)))
    holdings.delta(TABLE).create_checkpoint()
    clean_log(holdings, TABLE, before=11)
    coverage = holdings.coverage(TABLE, verify)
    assert spans(coverage) == [Span("t", 0, 0, 24)]
    assert (coverage.chains[0].commits, coverage.first_read, coverage.is_whole) == (12, 11, False)


def test_no_more_commits_are_read_than_tell_all(holdings: Holdings) -> None:
    holdings.batches("t", *({0: 2 * n} for n in range(1, 13)))
    holdings.delta(TABLE).create_checkpoint()
    assert holdings.coverage(TABLE).first_read == 11
    assert holdings.coverage(TABLE, verify=True).first_read == 0


def test_of_a_table_of_several_queries_each_ones_newest_commit_is_found(holdings: Holdings) -> None:
    for topic, ends in (("t", [{0: 2}]), ("u", [{0: 7}]), ("v", [{0: n} for n in range(1, 9)])):
        holdings.batches(topic, *ends, table="quarantine", statement="quarantine", every=False)
    holdings.delta("quarantine").create_checkpoint()
    coverage = holdings.coverage("quarantine")
    assert set(spans(coverage)) == {Span("t", 0, 0, 2), Span("u", 0, 0, 7), Span("v", 0, 0, 8)}
    assert coverage.first_read == 0


def test_commits_of_older_code_tell_from_the_first_that_is_there(holdings: Holdings) -> None:
    holdings.batches("t", {0: 3}, {0: 5}, {0: 9}, since=False)
    holdings.delta(TABLE).create_checkpoint()
    assert spans(holdings.coverage(TABLE)) == [Span("t", 0, 0, 9)]
    clean_log(holdings, TABLE, before=2)
    assert spans(holdings.coverage(TABLE)) == [Span("t", 0, 5, 9)]


def test_commits_of_others_hold_nothing(holdings: Holdings) -> None:
    holdings.batches("t", {0: 3})
    holdings.insert(TABLE, (0, 3))
    holdings.write(TABLE, [(0, 4)], {"sink": "ingest.t", "query_id": 7}, {})
    assert spans(holdings.coverage(TABLE)) == [Span("t", 0, 0, 3)]


def test_the_words_of_another_write_are_no_claim(holdings: Holdings) -> None:
    holdings.batches("t", {0: 3})
    commit = next(DeltaLog(holdings.path(TABLE)).commits())
    assert commit.app_ids == ("ingest.t/bronze/t/bronze/q1",)
    file = Path(holdings.path(TABLE)) / "_delta_log" / f"{0:020}.json"
    file.write_text("\n".join(line for line in file.read_text().splitlines() if '"txn"' not in line))
    assert holdings.coverage(TABLE).chains == ()


def test_what_a_restore_took_back_is_told_and_no_longer_held(holdings: Holdings) -> None:
    holdings.batches("t", {0: 3}, {0: 5}, {0: 9})
    holdings.delta(TABLE).restore(0)
    coverage = holdings.coverage(TABLE)
    assert spans(coverage) == [Span("t", 0, 0, 3)]
    (lost,) = coverage.undone
    assert (lost.span, lost.version, lost.undone_by) == (Span("t", 0, 3, 9), 2, 3)
    holdings.delta(TABLE).restore(2)
    coverage = holdings.coverage(TABLE)
    assert (spans(coverage), coverage.undone) == ([Span("t", 0, 0, 9)], ())


def test_a_table_that_was_taken_back_to_before_its_first_batch_holds_nothing(holdings: Holdings) -> None:
    holdings.batches("u", {0: 1})
    holdings.batches("t", {0: 3}, table="bronze/u")
    holdings.delta("bronze/u").restore(0)
    coverage = holdings.coverage("bronze/u")
    assert spans(coverage) == [Span("u", 0, 0, 1)]
    assert [each.span for each in coverage.undone] == [Span("t", 0, 0, 3)]


def test_ranges_that_a_replay_replaced_are_told_apart_from_the_chain(holdings: Holdings) -> None:
    holdings.batches("t", {0: 3}, {0: 5})
    replaces = {"replay": "r7", "column": "hour", "from": "2013-01-01T00:00", "until": "2013-01-02T00:00"}
    own = {"sink": "replay", "query_id": "r7", "statement": "cutover", "batch": 0, "unknown": [1]}
    offsets = {"from": [{"t": {"0": 0}}], "until": [{"t": {"0": 2}}]}
    holdings.write(TABLE, [], own | {"replaces": replaces, "offsets": offsets}, {})
    holdings.write(TABLE, [], own | {"query_id": "r8", "replaces": replaces | {"replay": "r8"}, "offsets": offsets}, {})
    holdings.delta(TABLE).restore(2)
    coverage = holdings.coverage(TABLE)
    expected = ("hour", "2013-01-01T00:00", "2013-01-02T00:00")
    assert coverage.replaced == (ReplacedRows("r8", *expected, 3, 4), ReplacedRows("r7", *expected, 2, None))
    assert spans(coverage) == [Span("t", 0, 0, 5)]


@pytest.mark.parametrize("said", [{"replaces": "all"}, {"replaces": [3]}, {"replaces": None}])
def test_a_replaced_range_in_other_words_is_passed_over(said: dict[str, object], holdings: Holdings) -> None:
    holdings.batches("t", {0: 3})
    holdings.write(TABLE, [], {"sink": "x", "query_id": "r", "statement": "cutover", "batch": 0, **said}, {})
    assert holdings.coverage(TABLE).replaced == ()


def test_s3_and_files_have_other_names_here_than_in_hadoop() -> None:
    assert table_uri("file:/tables/x") == table_uri("file:///tables/x") == "/tables/x"
    assert table_uri("s3a://bucket/tables/x") == "s3://bucket/tables/x"
    assert table_uri("/tables/s3a://x") == "/tables/s3a://x"
