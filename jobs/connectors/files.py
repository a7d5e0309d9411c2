"""Files wherever tables and checkpoints lie, read and written without a JVM.

That is in a folder or in an object store (`s3a://`, `s3://`, whatever deltalake knows); credentials come from the
environment, as deltalake reads them.
"""

import re
from urllib.parse import urlsplit

from deltalake.fs import DeltaStorageHandler
from pyarrow import fs


def storage(path: str) -> tuple[fs.FileSystem, str]:
    """The file system that holds `path`, and what paths under `path` begin with there."""
    parts = urlsplit(path)
    if parts.scheme in ("", "file"):
        return fs.LocalFileSystem(), f"{parts.path if parts.scheme else path}/"
    return fs.PyFileSystem(DeltaStorageHandler(table_uri(path))), ""


def table_uri(path: str) -> str:
    """`path` as deltalake takes it: Hadoop's names of S3, and of local files, are no others' names."""
    return re.sub(r"^file:/+", "/", re.sub(r"^s3[an]://", "s3://", path))


def read_text(uri: str) -> str | None:
    """The text of a file; None where it is not there."""
    files, path = _located(uri)
    if files.get_file_info(path).type != fs.FileType.File:
        return None
    with files.open_input_stream(path) as stream:
        return bytes(stream.read()).decode()


def write_text(uri: str, text: str) -> None:
    """Write a file as a whole, over one that is there: a reader sees the old text or the new."""
    files, path = _located(uri)
    if not isinstance(files, fs.LocalFileSystem):
        # An object store has it when it is written to its end.
        with files.open_output_stream(path) as stream:
            stream.write(text.encode())
        return
    files.create_dir(path.rpartition("/")[0], recursive=True)
    with files.open_output_stream(f"{path}.new") as stream:
        stream.write(text.encode())
    files.move(f"{path}.new", path)


def listed(uri: str) -> list[str]:
    """The names in a folder, sorted; none where it is not there."""
    files, base = storage(uri)
    infos = files.get_file_info(fs.FileSelector(base.rstrip("/"), allow_not_found=True))
    return sorted(info.base_name for info in infos)


def _located(uri: str) -> tuple[fs.FileSystem, str]:
    folder, _, name = uri.rpartition("/")
    files, base = storage(folder)
    return files, f"{base}{name}"
