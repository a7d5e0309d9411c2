"""Which topics the checkpoints of queries know, by the topics' ids."""

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from pyarrow import fs

from jobs.connectors.files import storage
from jobs.offset_log import SOURCE_TOPICS

METADATA = "metadata"  # Spark's, in each checkpoint
DEEPEST = 5


def topic_ids_by_query(root: str) -> dict[str, dict[str, str]]:
    """The ids of source topics by name, by query id, of the checkpoints in the folder `root` and the folders in it.

    A file that is damaged is left out: the query itself stops by it.
    """
    if not urlsplit(root).scheme and not Path(root).is_dir():
        return {}
    files, base = storage(root)
    found: dict[str, dict[str, str]] = {}
    for folder in _checkpoints(files, base.rstrip("/"), DEEPEST):
        metadata, ids = (_json(files, f"{folder}/{name}") for name in (METADATA, SOURCE_TOPICS))
        if "id" in metadata:
            found[metadata["id"]] = ids
    return found


def _checkpoints(files: fs.FileSystem, folder: str, depth: int) -> Iterator[str]:
    infos = files.get_file_info(fs.FileSelector(folder, allow_not_found=True))
    if any(info.base_name == METADATA and info.type == fs.FileType.File for info in infos):
        yield folder
    elif depth:
        for info in infos:
            if info.type == fs.FileType.Directory:
                yield from _checkpoints(files, info.path, depth - 1)


def _json(files: fs.FileSystem, path: str) -> dict[str, str]:
    try:
        with files.open_input_stream(path) as file:
            said = json.loads(file.read())
    except (FileNotFoundError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}
