"""What spark-submit.sh takes for a job, checked before any JVM starts."""

from collections.abc import Sequence

import pytest

from conf.errors import TidemarkError
from jobs.arguments import is_bounded, parse_job, parse_replay, settings_of
from jobs.operations.replay.plan import request_of

JOB = "flights.hourly_delays"


def test_options_reach_the_settings_and_the_roots_are_stronger_than_set() -> None:
    options = ["--set", "spark.trigger=7 seconds", "--set", "paths.tables=/a", "--tables", "/b", "--checkpoints", "/c"]
    settings = settings_of(parse_job([JOB, "--env", "cluster", *options]))
    assert settings.kafka.replication_factor == 3
    assert settings.spark.trigger == "7 seconds"
    assert (settings.paths.tables, settings.paths.checkpoints) == ("/b", "/c")


@pytest.mark.parametrize(
    ("options", "bounded"), [((), False), (("--from", "2013-01-01"), True), (("--to", "latest"), True)]
)
def test_a_run_is_bounded_where_it_has_a_beginning_or_an_end(options: Sequence[str], bounded: bool) -> None:
    assert is_bounded(parse_job([JOB, *options])) is bounded


@pytest.mark.parametrize("pace", ["--until-caught-up", "--continuous"])
def test_a_bounded_run_has_no_pace(pace: str) -> None:
    with pytest.raises(TidemarkError, match=r"BAD_ARGUMENTS.*leave out --until-caught-up and --continuous"):
        parse_job([JOB, "--from", "earliest", pace])


def test_a_position_that_is_none_is_refused() -> None:
    with pytest.raises(TidemarkError, match="BAD_POSITION: `yesterday`"):
        parse_job([JOB, "--to", "yesterday"])


def test_the_range_of_a_replay_is_refused_where_it_has_no_place_in_time() -> None:
    for words, code in (
        (("--from", '{"t": {"0": 1e400}}'), "BAD_POSITION"),
        (("--from", "earliest", "--context", "99999999999999 weeks"), "BAD_ARGUMENTS"),
        (("--from", "earliest", "--context", f"{'9' * 5000} weeks"), "BAD_ARGUMENTS"),
    ):
        with pytest.raises(TidemarkError, match=code):
            request_of(parse_replay(["plan", JOB, *words]))


def test_two_paces_and_unknown_options_are_usage_errors(capsys: pytest.CaptureFixture[str]) -> None:
    for options in (["--continuous", "--until-caught-up"], ["--until-caugt-up"]):
        with pytest.raises(SystemExit) as stopped:
            parse_job([JOB, *options])
        assert stopped.value.code == 2
        assert "usage: ./spark-submit.sh JOB" in capsys.readouterr().err


def test_settings_of_a_job_that_is_not_there_are_refused_with_the_nearest() -> None:
    with pytest.raises(TidemarkError, match=r"`jobs\.flights\.hourly_delay` .*did you mean `flights\.hourly_delays`"):
        settings_of(parse_job([JOB, "--set", "jobs.flights.hourly_delay.trigger=1 second"]))


def test_lost_records_are_skipped_only_by_a_run_that_ends() -> None:
    with pytest.raises(TidemarkError, match=r"BAD_ARGUMENTS: --skip-lost .*; add --until-caught-up"):
        parse_job(["a.job", "--skip-lost"])
    assert parse_job(["a.job", "--skip-lost", "--until-caught-up"]).skip_lost
