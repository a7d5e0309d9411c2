"""Small files wherever tables and checkpoints lie, read and written without a JVM."""

from pyarrow import fs

SCHEMES = {"s3a": "s3", "s3n": "s3"}  # Hadoop's names for what Arrow has under another


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
    files.create_dir(path.rpartition("/")[0], recursive=True)
    with files.open_output_stream(f"{path}.new") as stream:
        stream.write(text.encode())
    files.move(f"{path}.new", path)


def listed(uri: str) -> list[str]:
    """The names in a folder, sorted; none where it is not there."""
    files, path = _located(uri)
    found = files.get_file_info(fs.FileSelector(path, allow_not_found=True))
    return sorted(info.base_name for info in found)


def _located(uri: str) -> tuple[fs.FileSystem, str]:
    scheme, separator, rest = uri.partition("://")
    known = f"{SCHEMES.get(scheme, scheme)}{separator}{rest}" if separator else uri
    files, path = fs.FileSystem.from_uri(known)
    return files, path
