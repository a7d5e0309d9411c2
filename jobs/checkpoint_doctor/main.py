"""The script that spark-submit starts for `local/tidemark checkpoint`."""

import json
import sys
from argparse import Namespace
from pathlib import Path

# spark-submit puts this file's own folder first on the path.
sys.path[0] = str(Path(__file__).resolve().parent.parent.parent)

from pyspark.sql import SparkSession  # noqa: E402

from conf.errors import exit_on_error  # noqa: E402
from conf.settings import Settings  # noqa: E402
from jobs import catalog  # noqa: E402
from jobs.arguments import settings_of  # noqa: E402
from jobs.checkpoint_doctor import arguments, moves  # noqa: E402
from jobs.checkpoint_doctor.diagnosis import Doctor  # noqa: E402
from jobs.declarations import Declarations  # noqa: E402

NOTHING_TO_DO = ("new", "safe")


def main() -> int:
    args = arguments.parse(sys.argv[1:])
    settings = settings_of(args)
    module = catalog.load(args.job)
    spark = SparkSession.builder.appName(f"checkpoint {args.action} {args.job}").getOrCreate()
    try:
        run = Declarations(spark, settings, args.job)
        module.build(run)
        return act(spark, settings, run, args)
    finally:
        spark.stop()


def act(spark: SparkSession, settings: Settings, run: Declarations, args: Namespace) -> int:
    """Carry out an action on the declared outputs of `run`, and print what there is to say; the exit code."""
    if args.action == "doctor":
        return _diagnose(Doctor(spark, settings, run), args.json)
    if args.action == "repartition":
        lines = moves.repartition(spark, settings, run, args.output)
    else:
        lines = moves.rename(spark, settings, run, args.output, args.source)
    print("\n".join(lines))
    return 0


def _diagnose(doctor: Doctor, as_json: bool) -> int:
    code = 0
    for diagnosis in doctor.diagnoses():
        code = max(code, int(diagnosis.answer not in NOTHING_TO_DO))
        for line in [json.dumps(diagnosis.to_json())] if as_json else diagnosis.lines():
            print(line, flush=True)
    return code


if __name__ == "__main__":
    exit_on_error(main)
