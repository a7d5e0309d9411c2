"""The script that spark-submit is given: the victim, from the checkout, as `jobs/main.py` starts a job."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent.parent)

from conf.errors import exit_on_error  # noqa: E402
from tests.faults import victim  # noqa: E402

if __name__ == "__main__":
    exit_on_error(victim.main)
