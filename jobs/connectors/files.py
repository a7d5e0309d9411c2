"""Reads and writes files wherever tables and checkpoints lie, without a JVM.

That is in a folder or in an object store (`s3a://`, `s3://`, whatever deltalake knows); credentials come from the
environment, as deltalake reads them.
"""

import re
from pathlib import Path
from urllib.parse import urlsplit

from deltalake.exceptions import DeltaError
from deltalake.fs import DeltaStorageHandler
from pyarrow import fs

from conf.errors import TidemarkError

BUFFER_BYTES = 65_536
# By default deltalake would go on for three minutes to ask a store that does not answer.
IMPATIENT = {"max_retries": "1", "retry_timeout": "10s", "connect_timeout": "5s", "timeout": "20s"}
# How errors of the library below deltalake begin, for whichever store; it says the same of a local disk and of a table.
OF_STORE = re.compile(
    r"Generic (?!LocalFileSystem |DeltaTable )(\w+) error"
    r"|The operation lacked (?:the necessary privileges|valid authentication credentials)"
)
# The system's own words on a file that it does not open, and that may be whole.
UNOPENED = ("Too many open files", "Permission denied")
ASKED_FOR = {
    "S3": "AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and the bucket",
    "MicrosoftAzure": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, and the container",
    "GCS": "GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT, and the bucket",
}
SCHEMES = {"s3": "S3", "s3a": "S3", "s3n": "S3", "gs": "GCS", "gcs": "GCS"}
SCHEMES |= dict.fromkeys(("az", "azure", "abfs", "abfss", "adl"), "MicrosoftAzure")


def storage(path: str) -> tuple[fs.FileSystem, str]:
    """Return the file system that holds `path`, and what paths under `path` begin with there.

    Raises:
        TidemarkError: OBJECT_STORE_REFUSES, where deltalake knows no such store, or lacks what it needs to ask it.
    """
    parts = urlsplit(path)
    if parts.scheme in ("", "file"):
        return fs.LocalFileSystem(), f"{parts.path if parts.scheme else path}/"
    return _store(path), ""


def lacks_folder(root: str) -> bool:
    """Return whether `root` is a path of this machine at which there is no folder; a store has none to look for."""
    return not urlsplit(root).scheme and not Path(root).is_dir()


def _store(path: str, options: dict[str, str] | None = None) -> fs.FileSystem:
    try:
        return fs.PyFileSystem(DeltaStorageHandler(table_uri(path), options))
    except (OSError, DeltaError) as exc:
        raise store_refuses(path, exc) from exc


def table_uri(path: str) -> str:
    """Return `path` as deltalake takes it: it does not know Hadoop's schemes `s3a:`, `s3n:` and `file:`."""
    return re.sub(r"^file:/+", "/", re.sub(r"^s3[an]://", "s3://", path))


def require_reachable(uri: str) -> None:
    """Raise TidemarkError OBJECT_STORE_REFUSES where `uri` is in an object store that does not list it for us."""
    if urlsplit(uri).scheme in ("", "file"):
        return
    try:
        _store(uri, IMPATIENT).get_file_info(fs.FileSelector("", allow_not_found=True))
    except OSError as exc:
        raise store_refuses(uri, exc) from exc


def is_of_store(exc: Exception) -> bool:
    """Return whether deltalake raised it for what an object store has answered:
    such errors have no class of their own."""
    is_of_deltalake = isinstance(exc, OSError | DeltaError) or type(exc) is Exception
    return is_of_deltalake and OF_STORE.search(str(exc)) is not None


def store_refuses(what: str, exc: Exception) -> TidemarkError:
    """Return the OBJECT_STORE_REFUSES for what deltalake raised of an object store, or of the path `what` in one."""
    found = OF_STORE.search(str(exc))
    store = (found and found[1]) or SCHEMES.get(urlsplit(what).scheme, "")
    asked_for = ASKED_FOR.get(store, "the address, and what lets you in there")
    return TidemarkError("OBJECT_STORE_REFUSES", f"{what}: {_reason(str(exc))}", f"check {asked_for}")


def is_unopened(exc: Exception) -> bool:
    """Return whether a library tells that the system did not open a file."""
    return any(said in str(exc) for said in UNOPENED)


def not_opened(table: str, exc: Exception) -> TidemarkError:
    """Return the NOT_READ for a table of which the system did not open a file."""
    what = f"the table {table} cannot be read: {one_line(str(exc))}"
    remedy = "let this user read the table's folder, and open as many files as that takes (`ulimit -n`)"
    return TidemarkError("NOT_READ", what, remedy)


def _reason(said: str) -> str:
    """Say in a line what a store answered: its code and message, or the innermost of deltalake's lines."""
    code, message = (re.search(rf"<{name}>(.*?)</{name}>", said) for name in ("Code", "Message"))
    if code:
        return f"{code[1]}: {message[1] if message else ''}"
    lines = [line for line in _plain(said).replace("↳", "").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it does not say why"


def one_line(said: str) -> str:
    """Return what deltalake or pyarrow said, without colours and backtrace: its first line, and the causes below."""
    first, *others = _plain(said).strip().splitlines() or [""]
    causes = [line.strip().removeprefix("↳").strip() for line in others if line.lstrip().startswith("↳")]
    line = ": ".join(text.strip().rstrip(".:") for text in (first, *causes))
    return "".join(character for character in line if character.isprintable())


def _plain(said: str) -> str:
    return re.sub(r"\x1b\[\d+m", "", said)


def read_text(uri: str) -> str | None:
    """Return the text of a file; None where it is not there."""
    files, path = _located(uri)
    if files.get_file_info(path).type != fs.FileType.File:
        return None
    with files.open_input_stream(path) as stream:
        return bytes(stream.read()).decode()


def write_text(uri: str, text: str) -> None:
    """Write a file as a whole, over one that is there: a reader sees the old text or the new."""
    files, path = _located(uri)
    if not isinstance(files, fs.LocalFileSystem):
        # An object store has it when it is written to its end. Without a buffer pyarrow hands on what deltalake
        # refuses.
        with files.open_output_stream(path, buffer_size=BUFFER_BYTES) as stream:
            stream.write(text.encode())
        return
    files.create_dir(path.rpartition("/")[0], recursive=True)
    with files.open_output_stream(f"{path}.new") as stream:
        stream.write(text.encode())
    files.move(f"{path}.new", path)


def listed(uri: str) -> list[str]:
    """Return the names in a folder, sorted; none where it is not there."""
    files, base = storage(uri)
    infos = files.get_file_info(fs.FileSelector(base.rstrip("/"), allow_not_found=True))
    return sorted(info.base_name for info in infos)


def _located(uri: str) -> tuple[fs.FileSystem, str]:
    folder, _, name = uri.rpartition("/")
    files, base = storage(folder)
    return files, f"{base}{name}"
