"""Which partition a key belongs to, for thousands of keys at once: as Java's default partitioner, murmur2 of its bytes.

Source: `org.apache.kafka.common.utils.Utils.murmur2`, which librdkafka calls `murmur2_random`.
"""

import numpy as np
import numpy.typing as npt

SEED, M = 0x9747B28C, np.uint32(0x5BD1E995)
POSITIVE = np.uint32(0x7FFFFFFF)
# Keys are hashed by length, all of one length together: with more lengths than these in a batch that is no gain.
MOST_LENGTHS = 64

Words = npt.NDArray[np.uint32]


def partitions_of(
    data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int32], partitions: int
) -> npt.NDArray[np.int32] | None:
    """The partition of each key, key i being `data[offsets[i]:offsets[i + 1]]`; None for keys of too many lengths."""
    lengths = np.diff(offsets)
    ranked = np.sort(lengths)
    distinct = ranked[np.flatnonzero(np.diff(ranked, prepend=-1))].tolist()
    if len(distinct) == 1:
        return _partitions(data[offsets[0] : offsets[-1]].reshape(len(lengths), distinct[0]), partitions)
    if len(distinct) > MOST_LENGTHS:
        return None
    found = np.empty(len(lengths), np.int32)
    for length in distinct:
        rows = np.flatnonzero(lengths == length)
        starts = offsets[rows].astype(np.int64)
        found[rows] = _partitions(data[starts[:, None] + np.arange(length)], partitions)
    return found


def _partitions(keys: npt.NDArray[np.uint8], partitions: int) -> npt.NDArray[np.int32]:
    return ((_murmur2(keys) & POSITIVE) % np.uint32(partitions)).astype(np.int32)


def _murmur2(keys: npt.NDArray[np.uint8]) -> Words:
    """Of the rows of `keys`, all of one length."""
    count, length = keys.shape
    whole = length - length % 4
    words = np.ascontiguousarray(keys[:, :whole]).view("<u4").reshape(count, whole // 4)
    h = np.full(count, SEED ^ length, np.uint32)
    for column in words.T:
        k = column * M
        k ^= k >> np.uint32(24)
        h = h * M ^ k * M
    for at in reversed(range(whole, length)):
        h ^= keys[:, at].astype(np.uint32) << np.uint32(8 * (at - whole))
    if length > whole:
        h *= M
    h ^= h >> np.uint32(13)
    h *= M
    return h ^ (h >> np.uint32(15))
