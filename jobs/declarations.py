"""A job's outputs as its code declares them, for looking at: nothing is made for them, and they cannot be started."""

from collections.abc import Callable

from pyspark.sql import DataFrame

from conf.settings import Delivery
from jobs import publishing
from jobs.connectors import kafka
from jobs.outputs import Batch
from jobs.run import Run


class Declarations(Run):
    """What a job's `build` declares; the ledgers of its output topics are not touched."""

    def _to_topic(
        self, records: DataFrame, name: str, topic: str, delivery: Delivery | None, mode: publishing.Mode
    ) -> Callable[[Batch], None]:
        kafka.check_output(records, topic)
        return _not_to_be_written


def _not_to_be_written(batch: Batch) -> None:
    raise NotImplementedError("an output that was only declared has no writer")


def publishes(write: Callable[[Batch], None]) -> bool:
    """Whether an output of `Declarations` goes to a topic, be it beside a table."""
    return write is _not_to_be_written or isinstance(write, publishing.InTurn)
