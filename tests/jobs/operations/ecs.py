"""Log lines as records, for tests."""

import json
from typing import Any

from tests.sent import Record


def ecs_line(at: str, message: str, level: str = "INFO", logger: str = "a.B", **fields: Any) -> str:
    """A line as log4j's EcsLayout writes it, with further `fields`."""
    line = {"@timestamp": at, "log.level": level, "message": message, "log.logger": logger, **fields}
    return json.dumps(line)


def record(value: str | None, partition: int = 0) -> Record:
    return Record(None if value is None else value.encode(), b"host-1", partition)
