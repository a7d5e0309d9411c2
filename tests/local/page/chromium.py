"""Debian's Chromium, without a window, told what to do over a pipe by the DevTools protocol."""

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from local.processes import wait_for

SECONDS = 60.0
# What the packages would put into /usr is unpacked, and found there.
LIBRARIES = "LD_LIBRARY_PATH"
QUIET = ("--headless", "--disable-gpu", "--no-first-run", "--disable-extensions", "--disable-background-networking")


def unpacked(folder: Path) -> Path:
    """The folder of Chromium's package, and of those that it needs and the machine lacks, which are only unpacked."""
    if not shutil.which("apt-get"):
        pytest.skip("neither Chromium nor Debian's packages are here")
    archives = folder / "archives"
    (archives / "partial").mkdir(parents=True)
    subprocess.run(["apt-get", "update", "-qq"], check=False, capture_output=True)
    places = ["-o", f"Dir::Cache::archives={archives}", "-o", "Debug::NoLocking=1"]
    fetch = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "--download-only", *places]
    subprocess.run([*fetch, "chromium", "fonts-dejavu-core"], check=True, capture_output=True)
    for package in archives.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, folder / "unpacked"], check=True)
        package.unlink()
    return folder / "unpacked"


def program(folder: Path) -> tuple[str, dict[str, str]]:
    """Chromium, and the environment that it runs in: an installed one, or that of the packages in `folder`."""
    if installed := shutil.which("chromium"):
        return installed, dict(os.environ)
    root = unpacked(folder)
    libraries = sorted({str(library.parent) for library in root.rglob("*.so*")})
    environment = os.environ | {LIBRARIES: ":".join(libraries), "XDG_DATA_HOME": str(root / "usr" / "share")}
    if not Path("/etc/fonts").exists():
        environment["FONTCONFIG_PATH"] = str(root / "etc" / "fonts")
    return str(root / "usr" / "lib" / "chromium" / "chromium"), environment


@dataclass
class Tab:
    """One page in the browser.

    Args:
        problems: what the browser complained of: errors in scripts, requests that failed, rules that were broken.
    """

    told: int
    heard: int
    session: str = ""
    number: int = 0
    rest: bytes = b""
    problems: list[str] = field(default_factory=list)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Ask the browser, and wait for its answer."""
        self.number += 1
        asked = {"id": self.number, "method": method, "params": parameters}
        os.write(self.told, json.dumps(asked | ({"sessionId": self.session} if self.session else {})).encode() + b"\0")
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            message = self._message()
            if message.get("id") == self.number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result
            self._note(message)
        raise AssertionError(f"{method}: no answer")

    def script(self, expression: str) -> Any:
        """The value of an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def open(self, address: str) -> None:
        """Go to a page, and wait until its content has been read."""
        self.call("Page.navigate", url=address)
        ready = "document.readyState === 'complete' && document.querySelector('main')?.dataset.loading === 'no'"
        self.wait(f"location.href === {json.dumps(address)} && {ready}")

    def wait(self, condition: str) -> None:
        """Wait until an expression is true in the page."""
        # While a page is replaced by the next, there is none to ask.
        guarded = f"(() => {{ try {{ return !!({condition}) }} catch {{ return false }} }})()"
        wait_for(lambda: bool(self.script(guarded)), SECONDS, lambda: AssertionError(f"{condition}: {self.text()}"))

    def text(self) -> str:
        return str(self.script("document.body.innerText"))

    def look(self, width: int, height: int, scheme: str) -> None:
        """Make the window so large, in pixels, and ask for `light` or `dark`."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def press(self, key: str, code: int, text: str = "") -> None:
        """Press a key."""
        for kind in ("keyDown", "keyUp"):
            pressed = {"type": kind, "key": key, "windowsVirtualKeyCode": code}
            self.call("Input.dispatchKeyEvent", **pressed, **({"text": text} if text and kind == "keyDown" else {}))

    def picture(self) -> bytes:
        """What is to be seen, as WebP."""
        answer = self.call("Page.captureScreenshot", format="webp", quality=80)
        return base64.b64decode(answer["data"])

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            part = os.read(self.heard, 1 << 20)
            assert part, "the browser has ended"
            self.rest += part
        text, _, self.rest = self.rest.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        return message

    def _note(self, message: dict[str, Any]) -> None:
        if message.get("method") == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(message["params"]["exceptionDetails"]))
        if message.get("method") == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
            self.problems.append(message["params"]["entry"]["text"])


@contextmanager
def chromium(command: str, environment: dict[str, str], folder: Path) -> Iterator[Tab]:
    """A tab of a browser that ends with it; its profile and log lie in `folder`."""
    told, ours = os.pipe()
    heard, theirs = os.pipe()
    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    options = [*QUIET, *root, f"--user-data-dir={folder / 'profile'}", "--remote-debugging-pipe"]
    # It reads what it is told from file 3, and answers in file 4.
    shell = ["bash", "-c", f'exec "$@" 3<&{told} 4>&{theirs}', "bash", command, *options]
    with (folder / "chromium.log").open("w") as log:
        process = subprocess.Popen(shell, env=environment, pass_fds=(told, theirs), stdout=log, stderr=log)
    os.close(told)
    os.close(theirs)
    try:
        tab = Tab(ours, heard)
        target = tab.call("Target.createTarget", url="about:blank")["targetId"]
        tab.session = tab.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            tab.call(f"{domain}.enable")
        yield tab
    finally:
        process.terminate()
        process.wait(SECONDS)
        os.close(ours)
        os.close(heard)
