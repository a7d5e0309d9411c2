"""Commands that need Spark and are no jobs: from their arguments to spark-submit, as `./spark-submit.sh` does it."""

from collections.abc import Sequence

from conf import ROOT
from jobs.arguments import settings_of
from jobs.maintenance import arguments as maintenance
from local import submit


def maintain(argv: Sequence[str]) -> int:
    """`maintain`: become spark-submit; raises what its arguments and settings raise, before any JVM starts."""
    own, spark_options = submit.split(argv)
    args = maintenance.parse(own)
    submit.become("maintain", settings_of(args), spark_options, ROOT / "jobs" / "maintenance" / "main.py", own)
    return 0
