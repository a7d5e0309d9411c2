"""What is written whole or not at all."""

from pathlib import Path

import pytest

from local.whole_files import write_whole, written_whole


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    write_whole(path, "old")
    with pytest.raises(OSError, match="No space left") as caught, written_whole(path) as partial:
        partial.write_text("ne")
        raise OSError(28, "No space left on device")
    assert caught.value.filename == str(path)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("kept", "old")]
    write_whole(path, "new")
    assert path.read_text() == "new"


def test_an_error_of_another_file_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, written_whole(tmp_path / "kept"):
        (tmp_path / "other").read_text()
    assert caught.value.filename == str(tmp_path / "other")
    with pytest.raises(FileNotFoundError) as caught:
        write_whole(tmp_path / "none" / "kept", "x")
    assert caught.value.filename == str(tmp_path / "none" / "kept")
