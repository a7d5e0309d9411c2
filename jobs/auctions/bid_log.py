"""Which bids were made in each minute, a folder a minute?

topic bids -> decode -> bid_log -> Delta table bid_log, by day and minute
    ./spark-submit.sh auctions.bid_log --until-caught-up

Append mode, stateless; the table is partitioned. Nexmark's query 10.
"""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.pipeline.run import Run

DAY_SECONDS = 86_400
COLUMNS = ("auction", "bidder", "price", "bid_at", "extra")


def bid_log(bids: DataFrame) -> DataFrame:
    """The bids, with the day (UTC) and the minute of the day that they fall into.

    Args:
        bids: `auction`, `bidder`, `price` long, `bid_at` timestamp, `extra` string.

    Returns:
        those columns, `day` date, `minute` string as in 09:05.
    """
    second = F.unix_seconds("bid_at")
    day = F.date_from_unix_date(F.floor(second / DAY_SECONDS).cast("int"))
    hour, minute = (F.floor(F.pmod(second, F.lit(period)) / unit) for period, unit in ((DAY_SECONDS, 3600), (3600, 60)))
    return bids.select(*COLUMNS, day.alias("day"), F.format_string("%02d:%02d", hour, minute).alias("minute"))


def build(run: Run) -> None:
    log = bid_log(run.read("bids"))
    run.append(log, table="bid_log", partition_by=("day", "minute"), event_time="bid_at")
