"""Columns that Spark works out where they stand.

The optimizer pushes filters down through a projection and copies its expressions into them, however dear these are;
what it takes for random it leaves alone, and what is below it stays below.
"""

from typing import Any

from pyspark.sql import Column
from pyspark.sql import functions as F

ALWAYS = "(SPARK_PARTITION_ID() >= 0)"


def fenced(column: Column) -> Column:
    """`column`, which is neither moved nor copied."""
    return F.when(F.spark_partition_id() >= 0, column)


def is_fence(expression: Any) -> bool:
    """Whether a Catalyst `expression` only says that the one beside it is `fenced`: it is true in every partition."""
    return str(expression.sql()) == ALWAYS
