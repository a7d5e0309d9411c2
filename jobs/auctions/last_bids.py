"""What was the last bid of each bidder in each auction?

topic bids -> decode -> last_bids -> Delta table last_bids
    ./spark-submit.sh auctions.last_bids --until-caught-up

Update mode, stateless: a later bid replaces an earlier one in the table itself. Among bids in the same millisecond
the greater counts, among equal ones the greater channel, URL and `extra`. Nexmark's query 18.
"""

from pyspark.sql import DataFrame

from jobs.pipeline.run import Run

KEYS = ("bidder", "auction")
LATEST = ("bid_at", "price", "channel", "url", "extra")


def last_bids(bids: DataFrame) -> DataFrame:
    """A row a bid: `auction`, `bidder`, `price` long, `channel`, `url` string, `bid_at` timestamp, `extra` string."""
    return bids.select(*KEYS, *LATEST)


def build(run: Run) -> None:
    frame = last_bids(run.read("bids"))
    run.upsert(frame, table="last_bids", keys=KEYS, newest_by=LATEST, event_time="bid_at")
