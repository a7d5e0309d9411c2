"""The way of a replay: run, verify, cut over, undo; each may be begun again, and what is done is not done twice."""

from collections.abc import Callable
from dataclasses import replace

from pyspark.sql import SparkSession

from conf import code
from conf.errors import TidemarkError
from conf.settings import Settings
from jobs.declarations import Declarations
from jobs.folders import Folders
from jobs.manifest import Manifest
from jobs.replay import extents
from jobs.replay.asking import Asked
from jobs.replay.cutover import Cutover
from jobs.replay.handover import hand_over
from jobs.replay.planning import plan_backfill
from jobs.replay.record import FINISHED, FOLDER, Part, Replacement, Replay, Replays
from jobs.replay.running import LateRowsError, Show, SliceRunner, Speed
from jobs.replay.shadow import CheckRun, ShadowRun
from jobs.replay.verifying import Finding, Verifier, findings_of
from jobs.run import Run

Build = Callable[[Run], None]


class Steps:
    """The steps of replays of one job.

    Args:
        build: declares the job's outputs.
        show: takes lines of progress.
        alive: raises, where the right to replay the job is lost.
    """

    def __init__(
        self, spark: SparkSession, settings: Settings, build: Build, show: Show, alive: Callable[[], None]
    ) -> None:
        self._spark, self._settings, self._build, self._show, self._alive = spark, settings, build, show, alive
        self._replays = Replays(settings)

    def plan_backfill(self, asked: Asked) -> Replay:
        """The replay of the whole history, for a job that has never run.

        Raises:
            TidemarkError: ALREADY_RUNS; BACKFILL_OF_TOPIC, where the job publishes.
        """
        run = Declarations(self._spark, self._settings, asked.job)
        self._build(run)
        for output in run.outputs:
            if output.topic:
                remedy = "start it: its first run begins with all that is in its topics, each record once"
                message = f"job {asked.job} publishes to topic {output.topic}, where nothing can be tried out first"
                raise TidemarkError("BACKFILL_OF_TOPIC", message, remedy)
        return plan_backfill(self._settings, asked, [Manifest.of(output) for output in run.outputs])

    def run(self, replay: Replay) -> Replay:
        """Read all slices into the shadow; one that ran before is left as it is.

        Raises:
            TidemarkError: CODE_CHANGED, where other code planned it; REPLAY_FINISHED; what the job ends with.
        """
        self._require_open(replay)
        if replay.state != "planned":
            return replay
        run, speed = ShadowRun(self._spark, self._settings, replay), Speed()
        self._build(run)
        for output in run.outputs:
            runner = SliceRunner(run, output, self._show, self._alive, bool(replay.findings.get("held")), speed)
            try:
                runner.complete()
            except LateRowsError:
                self._show(f"{output.query:<28} rows would be late: begun again with the watermark held to the end")
                replay = self._replays.keep(replay, findings={**replay.findings, "held": True})
                runner.start_over()
                runner.complete()
        measured = {"records": speed.records, "seconds": round(speed.seconds, 1)}
        return self._replays.keep(replay, state="ran", findings={**replay.findings, "run": measured})

    def verify(self, replay: Replay) -> tuple[Replay, list[Finding]]:
        """Compare the shadow; verified where it is what an independent recomputation gives."""
        self._require_open(replay)
        found = Verifier(self._spark, self._settings, replay, self._build_check).verify()
        right = not any(each.unlike_check for each in found)
        findings = {**replay.findings, "tables": findings_of(found)}
        return self._replays.keep(replay, state="verified" if right else "ran", findings=findings), found

    def cut_over(self, replay: Replay, accept: bool) -> Replay:
        """Put the replay's rows in the place of the live ones, or hand a backfill over; once.

        Args:
            accept: differences from the live tables that nobody can explain, too.

        Raises:
            TidemarkError: NOT_VERIFIED; UNEXPLAINED; LIVE_CHANGED, BUSY_TABLE.
        """
        if replay.state == "done":
            return replay
        self._require_open(replay)
        self._require_verified(replay, accept)
        if replay.kind == "backfill":
            run = ShadowRun(self._spark, self._settings, replay)
            self._build(run)
            for line in hand_over(self._spark, self._settings, replay, run):
                self._show(line)
            return self._replays.keep(replay, state="done")
        cutover = Cutover(self._spark, self._settings, replay, self._alive)
        parts = []
        for part in replay.parts:
            tables = tuple(self._swapped(cutover, replay, part, each) for each in part.tables)
            parts.append(replace(part, tables=tables))
            if part.topic:
                self._show(f"{part.topic:<28} {cutover.publish(part):,} records sent, marked with the replay's id")
        return self._replays.keep(replay, state="done", parts=tuple(parts))

    def undo(self, replay: Replay) -> Replay:
        """Put the rows back that the cutover has replaced.

        Raises:
            TidemarkError: NOT_CUT_OVER; LIVE_CHANGED, BUSY_TABLE.
        """
        if replay.state != "done" or replay.kind == "backfill":
            remedy = "only the cutover of a range can be taken back"
            raise TidemarkError("NOT_CUT_OVER", f"replay {replay.id} ({replay.kind}) is {replay.state}", remedy)
        cutover = Cutover(self._spark, self._settings, replay, self._alive)
        for part in replay.parts:
            for each in part.tables:
                made = cutover.swap_out(part, each) if each.rows.is_told else None
                if made is not None:
                    self._show(f"{each.rows.table:<28} as it was before, in version {made}")
            if part.topic:
                self._show(f"{part.topic:<28} records that were sent cannot be taken back")
        return self._replays.keep(replay, state="undone")

    def abandon(self, replay: Replay) -> Replay:
        """Remove what the replay has written beside the live tables; its record stays."""
        for path in (
            f"{self._settings.paths.tables}/{FOLDER}/{replay.id}/{each}" for each in ("shadow", "check", "restored")
        ):
            Folders(self._spark).remove(path)
        Folders(self._spark).remove(f"{self._settings.paths.checkpoints}/{FOLDER}/{replay.id}")
        return replay if replay.state in FINISHED else self._replays.keep(replay, state="abandoned")

    def _swapped(self, cutover: Cutover, replay: Replay, part: Part, each: Replacement) -> Replacement:
        table = each.rows.table
        if not each.rows.is_told:
            self._show(f"{table:<28} left as it is: nothing tells which of its rows a range makes")
            return each
        found = replay.findings["tables"].get(table, {})
        if not found.get("unlike_live"):
            self._show(f"{table:<28} is as the replay has it: nothing to change")
            return each
        version = cutover.swap_in(part, each)
        where = extents.condition(replay, part, each)
        self._show(f"{table:<28} {found['rows']:,} rows swapped in, in version {version}: {where[:200]}")
        return replace(each, cut_over=version)

    def _build_check(self, run: CheckRun) -> None:
        self._build(run)

    def _require_open(self, replay: Replay) -> None:
        if replay.state in FINISHED:
            remedy = "plan it again: records, tables or code may have changed"
            raise TidemarkError("REPLAY_FINISHED", f"replay {replay.id} is {replay.state}", remedy)
        if replay.code != code.version():
            message = f"replay {replay.id} was planned by code {replay.code}, this is {code.version()}"
            raise TidemarkError("CODE_CHANGED", message, f"abandon it, and plan it again: {replay.job}")

    def _require_verified(self, replay: Replay, accept: bool) -> None:
        if replay.state != "verified":
            remedy = f"`local/tidemark replay verify {replay.id}` first"
            raise TidemarkError("NOT_VERIFIED", f"replay {replay.id} is {replay.state}", remedy)
        for table, found in replay.findings["tables"].items():
            if found["unexplained"] and not accept and found["version"] is not None:
                message = f"table {table}: {found['unexplained']} rows differ from the live ones for no known reason"
                remedy = f"look at them (`replay verify {replay.id}`), then cut over with --accept-differences"
                raise TidemarkError("UNEXPLAINED", message, remedy)
