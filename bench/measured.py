"""Runs one command to its end, and writes what it and all processes that it began have taken to a file.

    python -m bench.measured FILE SECONDS COMMAND...

Processes that outlive the one that began them become children of this one (Linux: a child subreaper), so that their
CPU-seconds are counted too. Whatever still runs once the command has ended, or after SECONDS, is ended.
"""

import ctypes
import json
import os
import resource
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil

from local.processes import end_on_signal, ending_with_us

SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of <linux/prctl.h>
SAMPLE_S = 0.5
GRACE_S = 5


def main(file: Path, seconds: float, command: list[str]) -> int:
    """Run `command` in the folder of `file`; its exit code, or 124 where it took longer than `seconds`."""
    end_on_signal()
    ctypes.CDLL(None, use_errno=True).prctl(SUBREAPER, 1, 0, 0, 0)
    ended, peak = threading.Event(), [0]
    began = time.time()
    process = subprocess.Popen(ending_with_us(command), cwd=file.parent, stdin=subprocess.DEVNULL)
    sampler = threading.Thread(target=_sample, args=(ended, peak))
    sampler.start()
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        code = 124
    finally:
        exited = time.time()
        ended.set()
        sampler.join()
        _end_all()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    taken = {"began": began, "exited": exited, "cpu_seconds": used.ru_utime + used.ru_stime, "peak_bytes": peak[0]}
    file.write_text(json.dumps(taken))
    return code


def _sample(ended: threading.Event, peak: list[int]) -> None:
    """Resident memory of all processes; pages that several share are counted once."""
    while not ended.wait(SAMPLE_S):
        total = 0
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                total += process.memory_full_info().pss
        peak[0] = max(peak[0], total)


def _end_all() -> None:
    """End what still runs, and wait for it, so that what it took is known."""
    left = psutil.Process().children(recursive=True)
    for process in left:
        with suppress(psutil.Error):
            process.terminate()
    psutil.wait_procs(left, GRACE_S)
    with suppress(ChildProcessError):
        while True:
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    process.kill()
            os.waitpid(-1, 0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
