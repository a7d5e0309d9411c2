"""Records a row for each micro-batch, range and slice of a replay in the journal of this process.

A row is what was noted when the batch began, what was counted while it was written, and how it ended.
"""

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal

from conf import code_version
from conf.errors import TidemarkError
from conf.settings import Settings
from jobs.connectors.exactly_once.process import this_process
from jobs.connectors.tally import Tally
from jobs.pipeline.monitoring import micro_batch_table
from jobs.pipeline.monitoring.journal import BEGAN, ENDED, Journal
from jobs.pipeline.outputs import Batch
from jobs.pipeline.progress import Counted, offsets_of_batch
from jobs.pipeline.run import Run

Key = tuple[str, int]
RunKind = Literal["stream", "range", "replay"]


class Recorder:
    """Keeps the journal of one run, from when it is made until `close`.

    Args:
        settings: those that say where journals and table lie; for a replay the live ones, not its own.
        run: whose outputs are declared.
    """

    def __init__(self, settings: Settings, run: Run) -> None:
        self._settings, self._run = settings, run
        self._jobs = {output.query: output.job for output in run.outputs}
        self._journal = Journal(micro_batch_table.journal_folder(settings), run.job)
        self._begun: dict[Key, dict[str, Any]] = {}
        self._tallies: dict[Key, Tally] = {}
        self._driver = {"code_version": code_version.version(), **micro_batch_table.process_columns(this_process())}

    @property
    def is_waiting(self) -> bool:
        """Return whether a batch has begun whose end is not known."""
        return bool(self._begun)

    def job_of(self, query: str) -> str:
        return self._jobs.get(query, self._run.job)

    def note_begin(self, batch: Batch, run_id: str, kind: RunKind = "stream") -> Key:
        """Note that a batch is about to be written: one that is killed leaves this behind."""
        key = run_id, batch.version
        self._tallies[key] = batch.tally
        self._begun[key] = {
            **self._driver,
            **{"job": self.job_of(batch.sink), "query": batch.sink, "run": kind},
            **{"query_id": batch.query_id, "run_id": run_id, "batch": batch.version},
            **{"began_at": datetime.now(UTC), "offsets": offsets_of_batch(batch.offsets)},
        }
        self._journal.append(BEGAN, self._begun[key])
        return key

    def note_written(self, key: Key, rows: Mapping[str, int]) -> None:
        """Note what a batch wrote, by table or topic, where that is known after its write alone; raises KeyError where
        it is not known to have begun."""
        for place, count in rows.items():
            self._tallies[key].wrote(place, count)

    def note_end(self, key: Key, outcome: Mapping[str, Any]) -> dict[str, Any]:
        """Note how a batch ended; its whole row. `forget` is left to the caller. Raises KeyError where it is not known
        to have begun."""
        tally = self._tallies[key]
        row = {**self._begun[key], "rows_out": tally.rows, "write_phases": tally.milliseconds, **outcome}
        self._journal.append(ENDED, row)
        return row

    def note_failure(self, run_id: str, after: int, stop: TidemarkError) -> None:
        """Note what stopped a run, and with it the batches past the number `after` that it was at."""
        for key in [key for key in self._begun if key[0] == run_id and key[1] > after]:
            error = f"{stop.code}: {stop.message}"
            self.note_end(key, {"ended_at": datetime.now(UTC), "outcome": "failed", "error": error})
            self.forget(key)

    def forget(self, key: Key) -> None:
        self._begun.pop(key, None)
        self._tallies.pop(key, None)

    def fold(self) -> None:
        micro_batch_table.fold(self._settings, self._journal)

    def close(self) -> None:
        """Close the journal, so that the next fold takes it for finished."""
        self._journal.close()

    @contextmanager
    def writing(self, batch: Batch, kind: RunKind) -> Iterator[dict[str, Any]]:
        """Record the range, or the slice, that the block writes; the dict it gets has the row, once that is written."""
        key, row = self.note_begin(batch, str(uuid.uuid4()), kind), dict[str, Any]()
        try:
            yield row
        except TidemarkError as stop:
            self.note_failure(key[0], -1, stop)
            raise
        row |= self.note_end(key, self._written(key, batch))
        self.forget(key)

    def _written(self, key: Key, batch: Batch) -> dict[str, Any]:
        began, ended = self._begun[key], datetime.now(UTC)
        spans = began["offsets"]
        in_range = sum(max(0, span["end"] - (span["start"] or 0)) for span in spans)
        counted = self._run.counted.pop((batch.query_id, batch.version), None) or Counted(in_range, 0)
        whole = round((ended - began["began_at"]).total_seconds() * 1000)
        return {"ended_at": ended, "outcome": "done", "phases": {"triggerExecution": whole}} | counts(counted)


@contextmanager
def recording_replay(settings: Settings, run: Run) -> Iterator[None]:
    """Record the slices of a replay's run in the block; the next fold takes them into the table."""
    recorder = Recorder(settings, run)
    run.recording = lambda batch: recorder.writing(batch, "replay")
    try:
        yield
    finally:
        recorder.close()


def counts(counted: Counted) -> dict[str, Any]:
    return {
        "rows_in": counted.records,
        "bytes_in": counted.size,
        "rejected": counted.rejected,
        "rejected_by_code": dict(counted.codes),
        "failed_rules": dict(counted.failed),
    }
