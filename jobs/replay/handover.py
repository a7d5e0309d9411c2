"""A new job's history becomes the live job: its tables and checkpoints are moved to where the job looks for them.

The next run of the job goes on at the very offsets where the backfill ended: they are the same checkpoint.
"""

import json
from collections.abc import Sequence

from pyspark.sql import SparkSession

from conf.errors import TidemarkError
from conf.settings import Settings
from jobs import checkpoint
from jobs.folders import Folders
from jobs.outputs import Output
from jobs.plans import Source, sources
from jobs.replay import extents
from jobs.replay.ahead import kafka_position
from jobs.replay.record import Replay
from jobs.replay.shadow import ShadowRun


def hand_over(spark: SparkSession, settings: Settings, replay: Replay, run: ShadowRun) -> list[str]:
    """Move what is not there yet; a line for each output. Begun anew after a crash it goes on."""
    lines, folders = [], Folders(spark)
    for output in run.outputs:
        for each in output.tables:
            source = extents.shadow_path(settings, replay, each.table)
            _move(folders, source, extents.live_path(settings, each.table))
        folder = run.checkpoint(output)
        if checkpoint.query_id(spark, folder):
            _without_restored(spark, folder, replay, sources(output.frame))
        _move(folders, folder, f"{settings.paths.checkpoints}/{output.job}/{output.name}")
        lines.append(f"{output.query:<28} goes on at {json.dumps(_at(replay, output))}")
    return lines


def _move(folders: Folders, source: str, target: str) -> None:
    """Nothing where it is not there: it was moved before a crash."""
    if not folders.exists(source):
        return
    try:
        folders.move(source, target)
    except OSError as exc:
        remedy = f"look at what lies at {target}, then cut over again: it goes on"
        raise TidemarkError("HANDOVER_REFUSED", str(exc), remedy) from exc


def _at(replay: Replay, output: Output) -> dict[str, dict[int, int]]:
    topics = [each.topic for each in sources(output.frame) if each.topic]
    return {topic: dict(replay.untils[topic]) for topic in topics}


def _without_restored(spark: SparkSession, folder: str, replay: Replay, found: Sequence[Source]) -> None:
    """Take the sources that bronze supplied out of the checkpoint, whose last batch has read them to their end."""
    last = checkpoint.last_commit(spark, folder) or 0
    kept = [number for number, source in enumerate(found) if source.topic]
    for batch in (last - 1, last):
        lines = (checkpoint.entry(spark, folder, batch) or "").splitlines()
        if len(lines) == len(found) + 2:
            text = "\n".join([*lines[:2], *(lines[number + 2] for number in kept)])
            checkpoint.write(spark, f"{folder}/offsets/{batch}", text)
    for place, number in enumerate(kept):
        topic = found[number].topic
        checkpoint.set_initial_offsets(spark, folder, place, kafka_position(topic, replay.starts[topic]))
