"""Files of any encoding and archives of any system: the text that their writers meant."""

import argparse
import encodings.aliases
import gzip
import io
import json
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conf.errors import TidemarkError
from producers.files import inputs, request
from producers.files.inputs import Opening, open_inputs
from producers.files.rows import NOT_UTF8
from producers.files.schema import infer_schema
from tests.producers.files.read_back import NULLS, both_ways

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


def packed(kind: str, text: bytes) -> bytes:
    """The file as one of that kind holds it: `in.csv` in gzip, in a zip archive, in gzip within an archive."""
    if kind == "in.csv.gz":
        return gzip.compress(text, mtime=0)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as within:
        within.writestr(
            "in.csv.gz" if "gz" in kind else "in.csv", gzip.compress(text, mtime=0) if "gz" in kind else text
        )
    return archive.getvalue()


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_of_a_damaged_archive_rows_are_read_up_to_the_damage_which_is_named(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["in.csv.gz", "in.zip", "gz-in.zip"]))
    whole = packed(
        kind, b"a,b\n" + b"".join(b"%d,x%d\n" % (n, n * n) for n in range(data.draw(st.sampled_from([3, 3000]))))
    )
    place = data.draw(st.integers(0, len(whole) - 1))
    damage = data.draw(st.binary(max_size=3))
    damaged = whole[:place] + damage + whole[place + len(damage) :] if damage else whole[:place]
    with TemporaryDirectory() as folder:
        path = Path(folder, kind)
        path.write_bytes(damaged)
        opening = data.draw(st.sampled_from([Opening(), Opening(encoding="cp1252"), Opening(encoding="utf-32")]))
        try:
            values(path, opening)
        except TidemarkError as stop:
            assert stop.code in ("BAD_FILE", "UNKNOWN_FORMAT") and path.name in stop.message


def test_a_name_that_no_file_can_have_and_an_encoding_of_no_text_are_refused() -> None:
    with pytest.raises(TidemarkError, match="NO_FILE"):
        next(open_inputs([Path("a" * 300 + ".csv")], Opening()))
    with pytest.raises(argparse.ArgumentTypeError, match="'hex' is no encoding of text"):
        request._encoding("hex")


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


def is_single_byte(name: str) -> bool:
    """Return whether an encoding makes one character of each byte, those of a CSV file among them."""
    try:
        every = [bytes([byte]).decode(name, "replace") for byte in range(256)]
        return name != "ascii" and all(len(text) == 1 for text in every) and len("v,w\n".encode(name)) == 4
    except (LookupError, ValueError):
        return False


SINGLE_BYTE = sorted(filter(is_single_byte, {*encodings.aliases.aliases.values()}))


def test_python_has_many_encodings_of_single_bytes() -> None:
    assert {"cp1252", "cp1253", "cp1255", "cp037", "mac_greek", "iso8859_6", "koi8_r"} <= set(SINGLE_BYTE)


@settings(max_examples=400, deadline=None)
@given(encoding=st.sampled_from(SINGLE_BYTE), data=st.data(), buffer=st.sampled_from([9, 10, 1 << 16]))
def test_a_byte_that_its_encoding_lacks_becomes_no_letter(
    tmp_path_factory: pytest.TempPathFactory, encoding: str, data: st.DataObject, buffer: int
) -> None:
    missing = [byte for byte in range(128, 256) if not is_text(bytes([byte]), encoding)]
    any_byte = st.integers(128, 255)
    cells = data.draw(st.lists(st.lists(st.sampled_from(missing) | any_byte if missing else any_byte, max_size=4)))
    texts = [bytes(cell) for cell in cells]
    texts = [text for text in texts if not set(text.decode(encoding, "replace")) & set(',"\r\n')]
    path = tmp_path_factory.mktemp("bytes") / "in.csv"
    end = ",x\n".encode(encoding)
    path.write_bytes("v,w\n".encode(encoding) + b"".join(text + end for text in texts))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inputs, "BUFFER_BYTES", buffer)
        rows = [row for file in open_inputs([path], Opening(encoding=encoding)) for row in file.rows()]
    for text, row in zip(texts, rows, strict=True):
        if is_text(text, encoding):
            assert row.values == {"v": text.decode(encoding), "w": "x"}
        else:
            assert (row.values, row.problem) == (None, NOT_UTF8)


def is_text(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


@pytest.mark.parametrize(
    ("encoding", "data"), [("cp1253", b"\xd2\xaa"), ("cp1255", b"\xdb\xd9\xd9"), ("utf-7", b"+3MPcqQ-")]
)
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_bytes_that_would_be_utf_8_together_reject_their_row(
    tmp_path: Path, encoding: str, data: bytes, kind: str
) -> None:
    path = tmp_path / f"in.{kind}"
    path.write_bytes(b"v\nx" + data + b"\ny\n" if kind == "csv" else b'{"v":"x' + data + b'"}\n{"v":"y"}\n')
    found, rejects = both_ways(path, opening=Opening(encoding=encoding))
    assert (found, [reason for _, reason in rejects]) == ([{"v": "y"}], [NOT_UTF8])


@pytest.mark.parametrize("buffer", range(1, 8))
def test_bytes_that_are_read_one_after_the_other_are_no_utf_8_together(
    tmp_path: Path, buffer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "BUFFER_BYTES", buffer)
    (tmp_path / "in.csv").write_bytes(b"v\nx\xd2\xaa\n\xd2\xaa\ny\n")
    assert values(tmp_path / "in.csv", Opening(encoding="cp1253")) == [[], [], ["y"]]


def test_a_missing_byte_alone_is_kept_for_who_mends_the_row(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes(b"a,b\n\xe9\x81\x8d,1\n")
    (row,) = [row for file in open_inputs([tmp_path / "in.csv"], Opening(encoding="cp1252")) for row in file.rows()]
    assert row.raw.encode("utf-8", "surrogateescape") == "é".encode() + b"\x81\x8d,1"


@pytest.mark.parametrize("line", ["sep=;\n", "SEP=;\r\n", '"sep=;"\n', "\ufeffsep=;\n"])
def test_a_first_line_that_names_the_delimiter_is_no_header(tmp_path: Path, line: str) -> None:
    path = tmp_path / "in.csv"
    path.write_text(line + "a;b,c\n1;2,5\n;bad;row\n", newline="")
    found, rejects = both_ways(path)
    assert (found, [line for line, _ in rejects]) == ([{"a": 1, "b_c": "2,5"}], [4])
    inferred = infer_schema("t", open_inputs([path], Opening()), NULLS)
    assert any("names the delimiter, and is no header" in note for note in inferred.notes)


def test_without_quotes_a_quote_is_a_character_of_its_cell(tmp_path: Path) -> None:
    path = tmp_path / "in.tsv"
    lines = ["a\tb", '1\t"Rome', '2\t"Rome"', '3\t""', "4\t", '5\tx"y"', "6\ttoo\tmany"]
    path.write_text("\n".join(lines))
    found, rejects = both_ways(path, opening=Opening(quoted=False))
    assert [row["b"] for row in found] == ['"Rome', '"Rome"', '""', None, 'x"y"']
    assert rejects == [(7, "it has 3 cells, the header 2")]


@pytest.mark.parametrize("data", ["v\n1\n\n3\n", "v\r\n\r\n1\r\n3", 'v\n1\n\n""\n"x\ny"\n\n'])
def test_blank_lines_are_counted_where_they_may_have_been_rows(
    tmp_path: Path, data: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "in.csv"
    path.write_text(data, newline="")
    both_ways(path)
    blank = 2 if "x" in data else 1
    what = "2 blank lines are" if blank == 2 else "1 blank line is"
    note = (
        f'note: {path}: {what} no row, though the file has but one column: if an empty cell was meant, write it as ""'
    )
    assert capsys.readouterr().err.splitlines() == [note, note]
    path.write_text("v,w\n1,2\n\n3,4\n")
    both_ways(path)
    assert capsys.readouterr().err == ""


def test_an_empty_cell_is_the_empty_text_on_request(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text('a,b,c,d\n,"",,\nx,y,3,NA\n')
    fields = [("a", "string"), ("b", ["null", "string"]), ("c", ["null", "long"]), ("d", ["null", "long", "string"])]
    schema = json.dumps(
        {"type": "record", "name": "R", "fields": [{"name": name, "type": kind} for name, kind in fields]}
    )
    found, rejects = both_ways(path, schema, empty_is_text=True)
    assert (rejects, found[0]) == ([], {"a": "", "b": "", "c": None, "d": None})
    found, rejects = both_ways(path, schema)
    assert (rejects, len(found)) == ([(2, "field `a`: a value is required")], 1)


@pytest.mark.parametrize(
    ("options", "quoted", "empty_is_text"), [([], True, False), (["--quote", "none", "--empty-text"], False, True)]
)
def test_the_arguments_say_how_cells_are_read(options: list[str], quoted: bool, empty_is_text: bool) -> None:
    parser = argparse.ArgumentParser()
    request.add_file_arguments(parser, run=print)
    asked = request.file_request(parser.parse_args(["in.csv", "--topic", "t", "--no-key", *options]))
    assert (asked.opening.quoted, asked.reading.empty_is_text) == (quoted, empty_is_text)
