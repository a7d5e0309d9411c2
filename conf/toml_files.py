"""Reads TOML files that people write, and says in one line what is wrong with one."""

import tomllib
from pathlib import Path
from typing import Any

from conf.errors import TidemarkError


def read_toml(path: Path, code: str) -> tuple[dict[str, Any], str]:
    """Return the tables of a file in UTF-8, with a byte order mark or without, and its text.

    Raises:
        TidemarkError: `code`, with the file and the reason, where it cannot be read or is no TOML.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        return tomllib.loads(text), text
    except OSError as exc:
        reason = exc.strerror or str(exc)
    except UnicodeDecodeError as exc:
        reason = f"it is no text in UTF-8 (byte {exc.start})"
    except RecursionError:
        reason = "its tables or lists lie too deep in one another"
    except ValueError as exc:  # tomllib's own, and Python's of a number with thousands of digits
        reason = str(exc)
    raise TidemarkError(code, f"{path}: {reason}", "mend the file")
