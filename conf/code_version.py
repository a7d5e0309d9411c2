"""Says which code this is: the package's version and a hash of its sources, the same wherever they lie.

Comments, docstrings and the layout of a source do not count: what a replay was planned with stays the same code when a
typo is fixed.
"""

import ast
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from conf import state_dir

VERSION = "0.1.0"  # pyproject.toml's, which does not travel with the packages
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
PACKAGES = ("conf", "jobs", "schemas")
CACHE = "code-version"  # in the state folder: a hash of the sources' bytes, and the version


@cache
def version() -> str:
    """Return the version, and the first 12 hex digits of a SHA-256 over path and syntax tree of every Python file of
    PACKAGES, in the order of their paths: for example `0.1.0+1f0c9a3be27d`. Read once a process, from a folder or a
    zip.

    To parse all of them takes half a second, so that the state folder, where there is one, keeps what came of it.
    """
    sources = sorted(source for package in PACKAGES for source in _sources(files(package), package))
    bytes_hash = _hash(sources)
    cached = state_dir() / CACHE
    with suppress(OSError, UnicodeDecodeError):
        of, _, known = cached.read_text().strip().partition(" ")
        if of == bytes_hash and known:
            return known
    current = f"{VERSION}+{_hash((path, _syntax(content)) for path, content in sources)[:12]}"
    if cached.parent.is_dir():
        with suppress(OSError):
            partial = cached.with_name(f"{CACHE}.{os.getpid()}")
            partial.write_text(f"{bytes_hash} {current}\n")
            partial.replace(cached)
    return current


def _hash(contents: Iterable[tuple[str, bytes]]) -> str:
    digest = hashlib.sha256()
    for path, content in contents:
        # With the length in front no two sets of files give the same bytes.
        digest.update(f"{path}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _syntax(source: bytes) -> bytes:
    parts: list[str] = []
    _add_syntax(ast.parse(source), parts)
    return "\0".join(parts).encode()


def _sources(folder: Traversable, path: str) -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _sources(entry, f"{path}/{entry.name}")
        elif entry.name.endswith(".py"):
            yield f"{path}/{entry.name}", entry.read_bytes()


def _add_syntax(node: Any, parts: list[str]) -> None:
    """Append what a syntax tree says. Unlike `ast.dump` the same under each version of Python: a field that is empty,
    as those are that a newer version adds, says nothing.
    """
    if isinstance(node, ast.AST):
        parts.append(type(node).__name__)
        for name in node._fields:
            value = getattr(node, name, None)
            if name == "body" and isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
                value = node.body[1:]
            if value is not None and value != []:
                parts.append(name)
                _add_syntax(value, parts)
        parts.append(")")
    elif isinstance(node, list):
        for item in node:
            _add_syntax(item, parts)
        parts.append("]")
    else:
        parts.append(repr(node))
