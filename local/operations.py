"""Commands that need Spark and are no jobs: from their arguments to spark-submit, as `./spark-submit.sh` does it."""

from argparse import Namespace
from collections.abc import Callable, Sequence

from conf import ROOT
from jobs.arguments import settings_of
from jobs.checkpoint_doctor import arguments as checkpoints
from jobs.maintenance import arguments as maintenance
from local import submit


def maintain(argv: Sequence[str]) -> int:
    """`maintain`; raises what its arguments and settings raise, before any JVM starts."""
    return _become("maintenance", argv, maintenance.parse)


def checkpoint(argv: Sequence[str]) -> int:
    """`checkpoint`; raises what its arguments and settings raise, before any JVM starts."""
    return _become("checkpoint_doctor", argv, checkpoints.parse)


def _become(package: str, argv: Sequence[str], parse: Callable[[Sequence[str]], Namespace]) -> int:
    own, spark_options = submit.split(argv)
    settings = settings_of(parse(own))
    submit.become(package, settings, spark_options, ROOT / "jobs" / package / "main.py", own)
    return 0
