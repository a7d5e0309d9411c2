"""Which batches the driver publishes itself."""

import pytest

from jobs.connectors.exactly_once.sink import FIRST_RECORDS, MOST_BYTES, PublishedBatch, is_small

MOST = 5_000
EVEN = PublishedBatch(1_000, 1_000, 100_000)


@pytest.mark.parametrize(
    ("read", "before", "small"),
    [
        (0, None, True),
        (FIRST_RECORDS, None, True),
        (FIRST_RECORDS + 1, None, False),
        (None, None, False),
        (MOST, EVEN, True),
        (MOST + 1, EVEN, False),
        # A filter may let more pass the next time, but not more than it reads.
        (MOST, PublishedBatch(1_000, 10, 1_000), True),
        (MOST, PublishedBatch(1_000, 2_000, 2_000), False),  # twice as many leave as come
        (MOST // 2, PublishedBatch(1_000, 2_000, 2_000), True),
        (100, PublishedBatch(1_000, 1_000, 1_000 * MOST_BYTES // 99), False),
        (None, PublishedBatch(None, 1_000, 1_000), True),
        (None, PublishedBatch(None, 1_300, 1_300), False),
        (10, PublishedBatch(None, 1_300, 1_300), False),
        (0, EVEN, True),
    ],
)
def test_a_batch_is_small_by_what_it_reads_and_by_the_one_before(
    read: int | None, before: PublishedBatch | None, small: bool
) -> None:
    assert is_small(read, before, MOST) is small


@pytest.mark.parametrize("before", [None, EVEN])
def test_no_batch_of_records_is_small_where_the_setting_is_0(before: PublishedBatch | None) -> None:
    assert not is_small(1, before, 0)
