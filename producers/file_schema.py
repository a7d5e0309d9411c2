"""The schema of a file's records: given, declared with the topic, written by an earlier inference, or inferred now."""

import sys
from collections.abc import Iterable
from pathlib import Path

from conf.errors import TidemarkError
from conf.topics import Topic
from producers.inference import infer_schema
from producers.rows import Input
from schemas.contracts import FOLDER, contract


def find_schema(topic: str, given: Path | None, declared: Topic | None, folder: Path = FOLDER) -> str | None:
    """The schema's text, None where it is still to be inferred.

    The first of: `given`; the contract of a declared topic; `<topic>.avsc` in `folder`.

    Raises:
        TidemarkError: NO_SCHEMA_FILE, where `given` cannot be read; UNKNOWN_CONTRACT; UNKNOWN_EVENT, where the topic
            has several and none is given.
    """
    if given is not None:
        try:
            return given.read_text(encoding="utf-8")
        except (OSError, ValueError) as exc:
            remedy = "check the path; to infer the schema and write it there, add --infer-only"
            raise TidemarkError("NO_SCHEMA_FILE", f"the schema {given} cannot be read: {exc}", remedy) from exc
    if declared is not None and declared.schemas:
        what = f"topic {topic} has events of several types: {', '.join(declared.schemas)}"
        raise TidemarkError("UNKNOWN_EVENT", what, f"name one: --schema {folder / declared.schemas[0]}.avsc")
    if declared is not None:
        return contract(declared.schema)
    path = folder / f"{topic}.avsc"
    if not path.is_file():
        return None
    print(f"schema: {path}, which was there; remove it to have it inferred anew")
    return path.read_text(encoding="utf-8")


def infer_and_write(topic: str, inputs: Iterable[Input], nulls: frozenset[str], path: Path) -> str:
    """Infer the schema, write it to `path` for review, and say so.

    Raises:
        TidemarkError: SCHEMA_EXISTS, SCHEMA_NOT_WRITTEN, and those of `infer_schema`.
    """
    inferred = infer_schema(topic, inputs, nulls)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(inferred.text)
    except FileExistsError as exc:
        raise TidemarkError("SCHEMA_EXISTS", f"{path} is there already", "remove it to infer the schema anew") from exc
    except OSError as exc:
        remedy = "name another place with --schema PATH --infer-only"
        raise TidemarkError("SCHEMA_NOT_WRITTEN", f"{path}: {exc.strerror}", remedy) from exc
    print(f"schema: inferred, and written to {path} for review")
    for note in inferred.notes:
        print(f"note: {note}", file=sys.stderr)
    return inferred.text
