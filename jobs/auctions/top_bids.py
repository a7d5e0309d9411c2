"""Which ten bids of each auction are the highest?

topic bids -> decode -> top_bids -> Delta table top_bids
    ./spark-submit.sh auctions.top_bids --until-caught-up

Update mode: an auction's rows are merged into the table with every micro-batch that has a bid for it. The state keeps
ten bids of every auction for good: an auction's bids have no end that a watermark could pass. Nexmark's query 19.
"""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.pipeline.run import Run

TOP = 10
BID = ("bidder", "price", "channel", "url", "bid_at", "extra")


def top_bids(bids: DataFrame) -> DataFrame:
    """The TOP highest bids of each auction; of equal prices the earliest, then the greater bidder and `extra`.

    Args:
        bids: `auction`, `bidder`, `price` long, `channel`, `url` string, `bid_at` timestamp, `extra` string.

    Returns:
        `auction` long, `rank` int from 1, `bidder`, `price`, `channel`, `url`, `bid_at`, `extra`.
    """
    earliest = (-F.unix_millis("bid_at")).alias("earliest")
    highest = F.max_by(F.struct(*BID), F.struct("price", earliest, "bidder", "extra"), TOP)
    top = bids.groupBy("auction").agg(highest.alias("top"))
    ranked = top.select("auction", F.posexplode("top").alias("position", "bid"))
    return ranked.select("auction", (F.col("position") + 1).alias("rank"), "bid.*")


def build(run: Run) -> None:
    run.upsert(top_bids(run.read("bids")), table="top_bids", keys=("auction", "rank"), event_time="bid_at")
