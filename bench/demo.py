"""How long does `local/tidemark demo` take, and how much memory do all its processes hold at their peak?

    local/tidemark setup && local/tidemark broker stop
    .tidemark/venv/bin/python -m bench.demo

It runs in a state folder of its own, into which packages and jars are copied first: downloads are left out.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from conf import ROOT, state_dir
from conf.errors import exit_on_error

FIRST_ANSWER = "which carriers leave late?"
LONGEST_SECONDS = 3600


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
    taken = Path(environment["TIDEMARK_STATE"]) / "taken.json"
    command = ["-m", "bench.measured", str(taken), str(LONGEST_SECONDS), str(ROOT / "local" / "tidemark"), "demo"]
    process = subprocess.Popen([sys.executable, *command], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    first = 0.0
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", flush=True)
        if FIRST_ANSWER in line:
            first = time.monotonic() - began
    code = process.wait()
    measured = json.loads(taken.read_text())
    whole, peak = measured["exited"] - measured["began"], measured["peak_bytes"]
    print(f"\nfirst answer after {first:.0f} s, everything after {whole:.0f} s")
    print(f"peak resident memory of all processes {peak / 2**30:.2f} GiB, pages that several share counted once")
    return code


if __name__ == "__main__":
    exit_on_error(main)
