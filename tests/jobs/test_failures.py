"""One line out of what Spark and Python say when a query fails."""

import pytest

from conf.errors import TidemarkError
from jobs.failures import cause_line, in_one_line

FOREACH = """[FOREACH_BATCH_USER_FUNCTION_ERROR] An error occurred in the user provided function.
Reason: An exception was raised by the Python Proxy. Return Message: Traceback (most recent call last):
  File "/x/py4j/clientserver.py", line 644, in _call_proxy
    return_value = getattr(self.pool[obj_id], method)(*params)
                   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
{last}
 SQLSTATE: 39000
=== Streaming Query ===
Identifier: levels"""
WORKER = """[STREAM_FAILED] Query [id = 1] terminated with exception: Job aborted due to stage failure
Caused by: org.apache.spark.api.python.PythonException: [PYTHON_EXCEPTION] An exception was thrown:
Traceback (most recent call last):
  File "worker.py", line 1, in main
    yield from rows()
ValueError: no such gauge
\tat org.apache.spark.api.python.BasePythonRunner.handle(PythonRunner.scala:1)
Caused by: java.lang.RuntimeException: less to the point"""
JAVA = """An error occurred while calling o42.save.
: org.apache.spark.SparkException: Job aborted.
\tat org.apache.spark.Something.run(Something.scala:1)
Caused by: java.io.IOException: No space left on device
\tat java.base/java.io.FileOutputStream.write(Native Method)
\t... 20 more"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (FOREACH.format(last="conf.errors.TidemarkError: BATCH_FAILED: power cut"), "BATCH_FAILED: power cut"),
        (FOREACH.format(last="KeyError: 'level'"), "KeyError: 'level'"),
        (WORKER, "ValueError: no such gauge"),
        (JAVA, "java.io.IOException: No space left on device"),
        (JAVA[: JAVA.index("Caused")], "org.apache.spark.SparkException: Job aborted."),
        (
            "[UNRESOLVED_COLUMN] A column `levle`\ncannot be resolved.\n'Project ['levle]",
            "[UNRESOLVED_COLUMN] A column `levle`",
        ),
        ("\n  plain  \n", "plain"),
        ("", "no cause given"),
    ],
)
def test_the_innermost_cause_is_found(text: str, expected: str) -> None:
    assert cause_line(text) == expected


def test_a_failing_write_is_one_line_with_the_whole_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    def write() -> None:
        raise OSError("power cut\nand more")

    with pytest.raises(TidemarkError, match="BATCH_FAILED: power cut") as failed:
        in_one_line(write)
    assert "and more" not in str(failed.value)
    assert "and more" in caplog.text
    assert "Traceback" in caplog.text


def test_an_error_of_ours_passes_as_it_is() -> None:
    def write() -> None:
        raise TidemarkError("TYPE_CHANGED", "a", "b")

    with pytest.raises(TidemarkError, match="TYPE_CHANGED: a; b"):
        in_one_line(write)
