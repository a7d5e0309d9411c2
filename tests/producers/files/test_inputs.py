"""Files of any encoding and archives of any system: the text that their writers meant."""

import gzip
import zipfile
from pathlib import Path

import pytest

from conf.errors import TidemarkError
from producers.files.inputs import Opening, open_inputs
from producers.files.rows import NOT_UTF8

TEXT = "Name,n\nMüller — 5 €,1\n"


def values(path: Path, opening: Opening | None = None) -> list[list[str]]:
    return [
        list((row.values or {}).values()) for each in open_inputs([path], opening or Opening()) for row in each.rows()
    ]


MARKED, NAMED = ["utf-8", "utf-8-sig", "utf-16", "utf-32"], ["cp1252", "utf-16-le", "utf-16-be", "mac-roman"]


@pytest.mark.parametrize("encoding", [*MARKED, *NAMED])
@pytest.mark.parametrize("packed", [False, True])
def test_an_encoding_that_is_said_or_marked_is_read(tmp_path: Path, encoding: str, packed: bool) -> None:
    path = tmp_path / ("in.csv.gz" if packed else "in.csv")
    data = (TEXT + "x,2\n" * 50_000).encode(encoding)
    path.write_bytes(gzip.compress(data) if packed else data)
    opening = Opening(encoding=None if encoding in MARKED else encoding)
    found = values(path, opening)
    assert (found[0], len(found)) == (["Müller — 5 €", "1"], 50_001)
    path.with_name("in.json").write_bytes('[{"a": "é — €"}]'.encode(encoding))
    assert values(path.with_name("in.json"), opening) == [["é — €"]]


def test_bytes_that_the_encoding_does_not_have_reject_their_row(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes(b"a,b\n\x81,1\n\xe9,2\n")
    inputs = open_inputs([tmp_path / "in.csv"], Opening(encoding="cp1252"))
    bad, good = [row for each in inputs for row in each.rows()]
    assert (bad.line, bad.values, bad.problem) == (2, None, NOT_UTF8)
    assert good.values == {"a": "é", "b": "2"}


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_named(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "in.csv").write_bytes(TEXT.encode(encoding))
    with pytest.raises(TidemarkError, match=r"BAD_FILE: .*as in UTF-16 .*; say it: --encoding utf-16-le, or"):
        next(open_inputs([tmp_path / "in.csv"], Opening()))


def test_a_header_that_is_not_utf_8_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes(b"\n\xe9,b\n1,2\n")
    with pytest.raises(
        TidemarkError, match=r"BAD_FILE: .*header, line 2, cannot be read: it is not UTF-8: .*--encoding"
    ):
        next(open_inputs([tmp_path / "in.csv"], Opening()))


def test_what_macos_and_windows_add_to_an_archive_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "in.ZIP"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data/", "")
        archive.writestr("data/in.csv", TEXT)
        archive.writestr("__MACOSX/data/._in.csv", b"\0\5\26\7\0\2\0\0Mac OS X")
        archive.writestr("data/.DS_Store", b"\0\0\0\1Bud1")
        archive.writestr("._in.csv", b"\0\5\26\7")
        archive.writestr("Thumbs.db", b"\xd0\xcf")
        archive.writestr("more.csv.gz", gzip.compress(b"a\n3\n"))
    assert values(path) == [["Müller — 5 €", "1"], ["3"]]


def test_an_archive_with_nothing_to_read_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        archive.writestr("__MACOSX/._in.csv", b"")
    with pytest.raises(TidemarkError, match=r"BAD_FILE: .*in\.zip: there is no file in it"):
        values(tmp_path / "in.zip")


def test_an_encrypted_archive_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "in.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("in.csv", TEXT)
    data = bytearray(path.read_bytes())
    for mark, flags in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
        data[data.find(mark) + flags] |= 1
    path.write_bytes(data)
    with pytest.raises(TidemarkError, match=r"BAD_FILE: .*in\.zip:in\.csv: .*encrypted.*; unpack it"):
        values(path)
