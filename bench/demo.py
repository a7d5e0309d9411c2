"""How long does `local/tidemark demo` take, and how much memory do all its processes hold at their peak?

    local/tidemark setup && local/tidemark broker stop
    .tidemark/venv/bin/python -m bench.demo

It runs in a state folder of its own, into which packages and jars are copied first: downloads are left out.
"""

import os
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import psutil

from conf import ROOT, state_dir
from conf.errors import exit_on_error

FIRST_ANSWER = "which carriers leave late?"
SAMPLE_S = 0.5


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="tidemark-bench-") as folder:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEMARK_")}
        environment["TIDEMARK_STATE"] = folder
        shutil.copytree(state_dir() / "jars", Path(folder) / "jars")
        (Path(folder) / ".tidemark-state").touch()
        subprocess.run([ROOT / "local" / "tidemark", "setup"], env=environment, check=True, capture_output=True)
        try:
            return _measure(environment)
        finally:
            subprocess.run([ROOT / "local" / "tidemark", "broker", "stop"], env=environment, check=True)


def _measure(environment: dict[str, str]) -> int:
    began = time.monotonic()
    command = [str(ROOT / "local" / "tidemark"), "demo"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    peak = [0]
    sampler = threading.Thread(target=_sample, args=(environment["TIDEMARK_STATE"], process, peak))
    sampler.start()
    first = 0.0
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", flush=True)
        if FIRST_ANSWER in line:
            first = time.monotonic() - began
    code = process.wait()
    sampler.join()
    whole = time.monotonic() - began
    print(f"\nfirst answer after {first:.0f} s, everything after {whole:.0f} s")
    print(f"peak resident memory of all processes {peak[0] / 2**30:.2f} GiB, pages that several share counted once")
    return code


def _sample(state: str, process: "subprocess.Popen[str]", peak: list[int]) -> None:
    """Resident memory of every process that was started for this state folder."""
    while process.poll() is None:
        peak[0] = max(peak[0], sum(_resident(process, state) for process in psutil.process_iter()))
        time.sleep(SAMPLE_S)


def _resident(process: psutil.Process, state: str) -> int:
    try:
        ours = process.environ().get("TIDEMARK_STATE") == state
        return int(process.memory_full_info().pss) if ours else 0
    except psutil.Error:
        return 0


if __name__ == "__main__":
    exit_on_error(main)
