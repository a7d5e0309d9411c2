"""Damaged payloads: what the job accepts, the strict decoder accepts with the same value, and the other way round."""

from collections import Counter

import pytest
from pyspark.sql import SparkSession

from tests.jobs.connectors.avro.fuzzing import GROUPS, fuzz

SEED = 20130101


@pytest.mark.slow
def test_the_job_and_the_strict_decoder_agree_on_every_damaged_payload(spark: SparkSession) -> None:
    count, chunk = 20_000, 20_000 // len(GROUPS)
    reports = list(fuzz(spark, SEED, count, chunk))
    assert [line for report in reports for line in report.disagreements] == []
    totals: Counter[str] = sum((report.counts for report in reports), Counter())
    assert totals.total() == count
    assert min(totals["good"], totals["rejected"]) > count / 10
