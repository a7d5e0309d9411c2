"""How much is on each account of the bank?

topic transfers -> decode -> balances -> Delta table balances
    ./spark-submit.sh auctions.balances --until-caught-up

Update mode: an account's row is replaced with every micro-batch that has a transfer of it. Money only goes from
account to account, so all balances sum to zero, in every version of the table: a transfer's two halves come out of
one record, and Delta commits a micro-batch whole. `bench/bank.py` reads that sum at every version.
"""

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.pipeline.run import Run


def balances(transfers: DataFrame) -> DataFrame:
    """One row per account that ever gave or got.

    Args:
        transfers: `from_account`, `to_account`, `amount` long.

    Returns:
        `account` long, `balance` long (what came less what went, in cents), `transfers` long.
    """
    given = F.struct(F.col("from_account").alias("account"), (-F.col("amount")).alias("change"))
    got = F.struct(F.col("to_account").alias("account"), F.col("amount").alias("change"))
    changes = transfers.select(F.inline(F.array(given, got)))
    return changes.groupBy("account").agg(F.sum("change").alias("balance"), F.count("*").alias("transfers"))


def build(run: Run) -> None:
    run.upsert(balances(run.read("transfers")), table="balances", keys=("account",))
