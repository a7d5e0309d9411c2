"""Merges encoded rows of several topics into one batch, in the order in which they go out."""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from producers.kafka.publisher import Batch

Encode = Callable[[pa.Table], list[bytes]]
Integers = npt.NDArray[np.int64]


def merged(
    tables: Mapping[str, pa.Table],
    topic: Integers,
    event_time: Integers,
    encoders: Mapping[str, Encode],
    keys: Mapping[str, str],
) -> Batch:
    """Return the rows of `tables`, encoded, as one batch.

    Args:
        tables: topic -> its events, in the order in which they go out.
        topic: of each event, an index into `tables`.
        event_time: of each event, ms since 1970.
        keys: topic -> the field whose text is the record's key.
    """
    names = np.array(list(tables), dtype=object)
    values, texts = np.empty(len(topic), dtype=object), np.empty(len(topic), dtype=object)
    for index, (name, table) in enumerate(tables.items()):
        lines = np.flatnonzero(topic == index)
        values[lines] = encoders[name](table)
        texts[lines] = table[keys[name]].cast(pa.string()).to_pylist()
    return Batch(names[topic].tolist(), values.tolist(), texts.tolist(), event_time.tolist())
