"""Transforms that several questions on auctions share: euros, levels of price, and the bids of an auction."""

from decimal import Decimal

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

EUROS = Decimal("0.908")  # for a dollar, as the benchmark has it
# In cents. A bid is of level 1 below the first bound, of level 3 from the second on.
BOUNDS = (10_000, 1_000_000)
# The model bids for the 100 auctions before the newest one, and the first of each 100: from 100 events a second on, all
# bids for an auction come within 35 seconds of its opening. A join remembers both sides for so long.
REACH = "1 minute"


def in_euros(price: str) -> Column:
    """The column `price`, long, in euros instead of dollars: decimal(23, 3)."""
    return (F.lit(EUROS) * F.col(price)).cast("decimal(23, 3)")


def levels() -> dict[str, Column]:
    """Whether a bid's `price` is of the level, by the level's name; `total` takes all."""
    price, (low, high) = F.col("price"), BOUNDS
    return {
        "total": F.lit(True),
        "level1": price < low,
        "level2": (price >= low) & (price < high),
        "level3": price >= high,
    }


def counts_by_level() -> list[Column]:
    """Aggregates of bids: `total_bids`, `level1_bids`, `level2_bids`, `level3_bids`, long."""
    return [F.count_if(is_of_level).alias(f"{level}_bids") for level, is_of_level in levels().items()]


def distinct_by_level() -> list[Column]:
    """Aggregates of bids: how many different bidders and auctions at each level, `total_bidders` and so on, int.

    A stream has no exact COUNT(DISTINCT), so the state holds the values themselves.
    """
    return [
        F.size(F.collect_set(F.when(is_of_level, F.col(column)))).alias(f"{level}_{column}s")
        for column in ("bidder", "auction")
        for level, is_of_level in levels().items()
    ]


def bids_within_reach(auctions: DataFrame, bids: DataFrame, lateness: str) -> DataFrame:
    """One row per bid and its auction, opened at most REACH before or after the bid; columns of both.

    Args:
        auctions, bids: need `auction` and `opened_at`, `bid_at` timestamp; other columns of both must differ in name.
        lateness: of both.
    """
    opened = auctions.withWatermark("opened_at", lateness)
    made = bids.withWatermark("bid_at", lateness).withColumnRenamed("auction", "bid_for")
    reach = F.expr(f"INTERVAL {REACH}")
    is_near = F.col("bid_at").between(F.col("opened_at") - reach, F.col("opened_at") + reach)
    return made.join(opened, (F.col("bid_for") == F.col("auction")) & is_near).drop("bid_for")
