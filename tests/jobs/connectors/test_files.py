"""What an object store answers is told in a line, whichever store it is, with the variables that it asks for."""

import pytest
from deltalake.exceptions import DeltaError

from conf.errors import TidemarkError
from jobs.connectors import files

REFUSED = "\n   \x1b[31m↳\x1b[0m Error performing GET https://store/t\n     \x1b[31m↳\x1b[0m Connection refused\n"


@pytest.mark.parametrize(
    ("store", "variable"),
    [("S3", "AWS_ACCESS_KEY_ID"), ("MicrosoftAzure", "AZURE_STORAGE_ACCOUNT_KEY"), ("GCS", "GOOGLE_")],
)
@pytest.mark.parametrize("before", ["", "Kernel error -> "])
def test_a_refusal_of_any_store_is_known_and_names_its_variables(before: str, store: str, variable: str) -> None:
    raised = OSError(f"{before}Generic {store} error{REFUSED}")
    assert files.is_of_store(raised)
    error = files.store_refuses("the object store", raised)
    assert (error.code, error.message) == ("OBJECT_STORE_REFUSES", "the object store: Connection refused")
    assert variable in error.remedy


@pytest.mark.parametrize(
    "raised",
    [
        OSError("Generic LocalFileSystem error: Permission denied"),
        DeltaError("Generic DeltaTable error: no"),
        DeltaError("Kernel error: Generic delta kernel error: no"),
        ValueError("Generic S3 error"),
    ],
)
def test_what_a_disk_or_a_table_says_is_not_taken_for_a_store(raised: Exception) -> None:
    assert not files.is_of_store(raised)


def test_a_store_that_nobody_knows_is_refused_in_a_line() -> None:
    with pytest.raises(TidemarkError, match="OBJECT_STORE_REFUSES: nowhere://bucket/t: Unknown scheme"):
        files.storage("nowhere://bucket/t")


def test_a_library_s_words_become_a_line_without_colours_and_backtrace() -> None:
    assert files.one_line(f"Generic X error{REFUSED}") == (
        "Generic X error: Error performing GET https://store/t: Connection refused"
    )
    assert files.one_line("Json error: \x0f cut short.\n   0: <unknown>\n   1: start_thread\n") == (
        "Json error:  cut short"
    )
