"""CSV as it comes: every row with its own line, whatever its cells hold, and no bad row takes others with it."""

import gzip
import zipfile
from pathlib import Path

import pytest

from conf.errors import TidemarkError
from producers.files.csv_rows import sniff_delimiter
from producers.files.inputs import Opening, open_inputs
from producers.files.rows import NOT_UTF8, Row


def rows(path: Path, delimiter: str | None = None) -> list[Row]:
    return [row for each in open_inputs([path], Opening(delimiter=delimiter)) for row in each.rows()]


def read(tmp_path: Path, data: bytes, delimiter: str | None = None) -> list[Row]:
    path = tmp_path / "in.csv"
    path.write_bytes(data)
    return rows(path, delimiter)


def columns(tmp_path: Path, data: bytes) -> list[str] | None:
    path = tmp_path / "in.csv"
    path.write_bytes(data)
    return next(open_inputs([path], Opening())).columns()


def good(found: list[Row]) -> list[tuple[int, list[str]]]:
    return [(row.line, list(row.values.values())) for row in found if row.values is not None]


def bad(found: list[Row]) -> list[tuple[int, str, str]]:
    return [(row.line, row.raw, row.problem) for row in found if row.values is None]


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_the_data(tmp_path: Path) -> None:
    data = b"\xef\xbb\xbfid,name\r\n1,a\r\n2,b\r\n"
    assert columns(tmp_path, data) == ["id", "name"]
    assert good(read(tmp_path, data)) == [(2, ["1", "a"]), (3, ["2", "b"])]


def test_lines_are_counted_through_quoted_newlines_and_blank_lines(tmp_path: Path) -> None:
    found = read(tmp_path, b'id,note\n1,"two\nlines"\n\n2,"three\r\nmore\nlines"\n3,x\n')
    assert good(found) == [(2, ["1", "two\nlines"]), (5, ["2", "three\r\nmore\nlines"]), (8, ["3", "x"])]
    assert found[0].raw == '1,"two\nlines"'


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"1", "it has 1 cells, the header 2"),
        (b"1,2,3", "it has 3 cells, the header 2"),
        (b"1,\xff", NOT_UTF8),
        (b'1,"x"y', "',' expected after '\"'"),
    ],
)
def test_a_bad_row_is_told_with_its_line_and_text(tmp_path: Path, line: bytes, problem: str) -> None:
    found = read(tmp_path, b"id,note\n0,a\n" + line + b"\n2,b\n")
    assert good(found) == [(2, ["0", "a"]), (4, ["2", "b"])]
    assert bad(found) == [(3, line.decode("utf-8", "surrogateescape"), problem)]


@pytest.mark.parametrize("rest", [b"2,b\n3,c\n", b'2,b\n3,"c"\n', b'2,"b\nb"\n3,c\n'])
def test_a_quote_that_is_never_closed_costs_its_own_line_only(tmp_path: Path, rest: bytes) -> None:
    found = read(tmp_path, b'id,note\n1,"open\n' + rest)
    assert [(line, raw) for line, raw, _ in bad(found)] == [(2, '1,"open')]
    assert [values[0] for _, values in good(found)] == ["2", "3"]


@pytest.mark.slow
def test_an_open_quote_does_not_swallow_a_large_file(tmp_path: Path) -> None:
    found = read(tmp_path, b'id,note\n1,"open\n' + b"2,b\n" * 400_000)
    assert (len(bad(found)), len(good(found))) == (1, 400_000)


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        ("a,b\n1,2\n", ","),
        ("a;b\n1,5;2\n3,5;4\n", ";"),
        ("a\tb\n1,0\t2\n", "\t"),
        ("a|b|c\n1|2|3\n", "|"),
        ('a,b\n"1;2;3",x\n', ","),
        ("alone\n1\n", ","),
        ("a;b\nx\u2028y,z;1\nu\x85v;2\n", ";"),
        ("", ","),
    ],
)
def test_the_delimiter_is_the_one_that_fits(text: str, delimiter: str) -> None:
    assert sniff_delimiter(text) == delimiter


def test_a_given_delimiter_is_taken(tmp_path: Path) -> None:
    assert good(read(tmp_path, b"a:b\n1,1:2\n", ":")) == [(2, ["1,1", "2"])]


def test_duplicate_column_names_are_numbered(tmp_path: Path) -> None:
    assert columns(tmp_path, b"a,b,a,a_2,\n") == ["a", "b", "a_3", "a_2", ""]


def test_a_file_without_rows_has_none(tmp_path: Path) -> None:
    assert read(tmp_path, b"") == read(tmp_path, b"id,name\n") == []
    assert columns(tmp_path, b"") == []


def test_a_last_line_without_an_end_counts(tmp_path: Path) -> None:
    assert good(read(tmp_path, "id\n√".encode())) == [(2, ["√"])]


@pytest.mark.parametrize("data", [b"a,\xff\n1,2\n", b'a,"b\n1,2\n'])
def test_a_file_whose_header_cannot_be_read_is_one_line(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(TidemarkError, match=r"BAD_FILE: .*in\.csv: it"):
        read(tmp_path, data)


def test_gzip_and_every_member_of_a_zip_are_read(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "in.csv.gz", "wb") as file:
        file.write(b"id\n1\n")
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        archive.writestr("a.csv", "id\n1\n")
        archive.writestr("b/c.tsv", "id\tx\n2\t3\n")
    assert good(rows(tmp_path / "in.csv.gz")) == [(2, ["1"])]
    assert good(rows(tmp_path / "in.zip")) == [(2, ["1"]), (2, ["2", "3"])]
    names = [each.name for each in open_inputs([tmp_path / "in.zip"], Opening())]
    assert names == [f"{tmp_path}/in.zip:a.csv", f"{tmp_path}/in.zip:b/c.tsv"]


def test_a_damaged_archive_gives_its_good_rows_and_then_one_line(tmp_path: Path) -> None:
    path = tmp_path / "in.csv.gz"
    path.write_bytes(gzip.compress(b"id\n" + b"".join(b"%d\n" % number for number in range(200_000)))[:-50_000])
    found = []
    with pytest.raises(TidemarkError, match=r"BAD_FILE: .*unreadable after line \d+"):
        for each in open_inputs([path], Opening()):
            for row in each.rows():
                found.append(row)
    assert len(found) > 1_000


@pytest.mark.parametrize(
    ("name", "code"), [("missing.csv", "NO_FILE"), ("notes.docx", "UNKNOWN_FORMAT"), ("broken.zip", "BAD_FILE")]
)
def test_what_is_no_input_is_named(tmp_path: Path, name: str, code: str) -> None:
    if name != "missing.csv":
        (tmp_path / name).write_text("no archive")
    with pytest.raises(TidemarkError, match=f"{code}: .*{name}"):
        rows(tmp_path / name)
