"""Merges rows into a Delta table by writing the table anew: for columns that MERGE cannot tell from its own."""

from collections.abc import Iterable, Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from jobs.connectors.spark_internals import MERGE_COLUMNS

CAME = "tidemark_came"


def needs_rewrite(columns: Iterable[str]) -> bool:
    """Return whether MERGE fails where its target or its source has these columns."""
    return not MERGE_COLUMNS.isdisjoint(name.lower() for name in columns)


def merged(held: DataFrame, rows: DataFrame, keys: Sequence[str], not_older: str | None) -> DataFrame:
    """Return all rows of the table `held` as MERGE would leave them, `rows` merged by `keys`.

    Args:
        rows: each key once; a column that they lack keeps its value in the table.
        not_older: SQL over `s`, a row that came, and `t`, the table's of the same key: whether it takes its place.
    """
    sides = held.withColumn(CAME, F.lit(0)), rows.withColumn(CAME, F.lit(1))
    both = sides[0].unionByName(sides[1], allowMissingColumns=True)
    names = [name for name in both.columns if name != CAME]
    row = F.struct(*(F.col(f"`{name}`") for name in names))
    # Where only one side has the key, it is both `s` and `t`; a key may be called so, too.
    named = (F.col(f"`{key}`").alias(f"{CAME}_{number}") for number, key in enumerate(keys))
    pairs = both.groupBy(*named).agg(F.max_by(row, CAME).alias("s"), F.min_by(row, CAME).alias("t"))
    given = {name.lower() for name in rows.columns}
    takes = F.expr(not_older) if not_older else F.lit(True)

    def value(name: str) -> Column:
        kept = F.col(f"t.`{name}`")
        return F.when(takes, F.col(f"s.`{name}`")).otherwise(kept) if name.lower() in given else kept

    return pairs.select(*(value(name).alias(name) for name in names))
