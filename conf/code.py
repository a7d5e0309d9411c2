"""Which code is this? The package's version and a hash of its sources: equal sources, equal text, wherever they lie."""

import hashlib
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

VERSION = "0.1.0"  # pyproject.toml's, which does not travel with the packages
PACKAGES = ("conf", "jobs", "schemas")


@cache
def version() -> str:
    """For example `0.1.0+1f0c9a3be27d`: the version, and the first 12 hex digits of a SHA-256 over path and content of
    every Python file of PACKAGES in the order of their paths. Read once a process, from a folder or a zip.
    """
    digest = hashlib.sha256()
    found = (source for package in PACKAGES for source in _sources(files(package), package))
    for path, content in sorted(found):
        # With the length in front no two sets of files give the same bytes.
        digest.update(f"{path}\0{len(content)}\0".encode())
        digest.update(content)
    return f"{VERSION}+{digest.hexdigest()[:12]}"


def _sources(folder: Traversable, path: str) -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _sources(entry, f"{path}/{entry.name}")
        elif entry.name.endswith(".py"):
            yield f"{path}/{entry.name}", entry.read_bytes()
