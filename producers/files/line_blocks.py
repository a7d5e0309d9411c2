"""Reads files of text in blocks of whole lines, so that memory is bounded whatever a file holds."""

import io
from collections.abc import Iterator

from producers.files.rows import LEAST_ROWS, READ_ERRORS, bad_file

# Some thousand rows: enough to read them by columns, and little enough to have several copies of.
BLOCK_BYTES = 1 << 19
# Past this a line cannot become a record, and reading on would only take memory.
LONGEST = 1 << 26
ENDS = (b"\n", b"\r")


class LineBlocks:
    """The lines of a stream, block by block."""

    def __init__(self, name: str, stream: io.BufferedReader, carriage_returns: bool) -> None:
        """`carriage_returns`: whether a carriage return alone ends a line, too."""
        self._name, self._stream = name, stream
        self._ends = ENDS if carriage_returns else ENDS[:1]
        self._rest = b""
        self._failure: Exception | None = None
        self._ended = False

    def next(self) -> bytes:
        """Return the next lines, some `BLOCK_BYTES` of them, or one that is longer; empty at the end.

        Raises:
            TidemarkError: BAD_FILE, where a line is longer than a record can be.
            READ_ERRORS: where the file cannot be read on, after the whole lines before.
        """
        chunks, size = [self._rest], len(self._rest)
        while True:
            while size < BLOCK_BYTES and (data := self._read()):
                chunks.append(data)
                size += len(data)
            block = b"".join(chunks)
            end = len(block) if self._ended else self._end(block)
            if end:
                self._rest = block[end:]
                return block[:end]
            if self._failure:
                raise self._failure
            if self._ended:
                return b""
            if size > LONGEST:
                raise bad_file(self._name, f"a line is longer than {LONGEST:,} bytes")
            data = self._read()
            chunks, size = [block, data], size + len(data)

    def _read(self) -> bytes:
        if self._failure or self._ended:
            return b""
        try:
            data = self._stream.read1(BLOCK_BYTES)
        except READ_ERRORS as exc:
            self._failure = exc
            return b""
        self._ended = not data
        return data

    def _end(self, block: bytes) -> int:
        """Return where the last whole line ends; one that ends with the block's carriage return may go on."""
        return max(block.rfind(end, 0, len(block) - (end == b"\r")) for end in self._ends) + 1


def lines_of(block: bytes) -> Iterator[str]:
    """Return the lines of a block, with their ends; bytes that are no UTF-8 are lone surrogates."""
    return iter(io.StringIO(block.decode("utf-8", "surrogateescape"), newline=""))


def halved(block: bytes) -> list[tuple[bytes, int]]:
    """Return two blocks with the lines of one, and how many lines lie before each; none where there are too few."""
    if block.count(b"\n") < 2 * LEAST_ROWS:
        return []
    middle = block.find(b"\n", len(block) // 2) + 1
    first, second = block[:middle], block[middle:]
    return [(first, 0), (second, first.count(b"\n"))] if first and second else []
