"""The contracts: the newest text of each event's schema, edited by people, one `.avsc` file each."""

from pathlib import Path

from conf.errors import TidemarkError, nearest

FOLDER = Path(__file__).resolve().parent


def contract(name: str, folder: Path = FOLDER) -> str:
    """The Avro schema text of contract `name` (a file's stem, as in conf/topics.toml).

    Raises:
        TidemarkError: UNKNOWN_CONTRACT, with the nearest name.
    """
    path = folder / f"{name}.avsc"
    if not path.is_file():
        raise TidemarkError("UNKNOWN_CONTRACT", f"no contract {path}", nearest(name, contract_names(folder)))
    return path.read_text(encoding="utf-8")


def contract_names(folder: Path = FOLDER) -> list[str]:
    """Every contract's name, sorted."""
    return sorted(path.stem for path in folder.glob("*.avsc"))
