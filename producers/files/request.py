"""Says what is to be published of files, and how."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from producers.files.inputs import Opening
from producers.files.record_parts import Parts
from producers.files.rejects import RejectLimit
from schemas.values import Reading


@dataclass(frozen=True)
class FileRequest:
    """A request to publish files; `parts` and `reading` say how rows are read, `opening` how files are.

    `exactly_once`: the name under which each row is published once, whatever happens; None: at least once.
    """

    topic: str
    paths: Sequence[Path]
    parts: Parts
    schema: Path | None = None
    reading: Reading = field(default_factory=Reading)
    opening: Opening = field(default_factory=Opening)
    rejects: Path | None = None
    limit: RejectLimit = field(default_factory=RejectLimit)
    create_partitions: int | None = None
    exactly_once: str | None = None
