"""Events that a source sends more than once, counted once."""

from pyspark.sql import DataFrame


def without_repeats(events: DataFrame, keys: list[str], event_time: str, lateness: str) -> DataFrame:
    """The first event of each `keys`, with a watermark `lateness` behind `event_time`; columns as they come.

    A stream remembers a key until the watermark has passed its event by `lateness`: a repeat, which bears the same
    event time, either finds its key or is itself too late. A batch has no watermark; one event of each key stays.
    """
    if not events.isStreaming:
        return events.dropDuplicates(keys)
    return events.withWatermark(event_time, lateness).dropDuplicatesWithinWatermark(keys)
