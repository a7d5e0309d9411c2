"""Builds the image with Debian's buildah, on a base that debootstrap makes, and runs commands in it.

There is no registry here that a base image could come from, so the base is made of the packages that Debian's own image
is made of. A container is what the kernel gives a process without a daemon: a root folder that is mounted read-only,
process ids of its own, the image's user, no capabilities.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from conf import ROOT, state_dir
from local.processes import exclusive, wait_for

SUITE = "bookworm"
BASE = f"localhost/debian:{SUITE}"
AUTHORITIES = Path("/usr/local/share/ca-certificates")  # of a machine behind a proxy; none elsewhere
PIP = Path("/etc/pip.conf")
STATE = "/var/lib/tidemark"
USER = 185
# Mounts the root folder of a container, then becomes its first process; the arguments: root, state, then the command.
ENTER = """
set -eu
root=$1 state=$2; shift 2
mount --make-rprivate /
mount --bind "$root" "$root"
for made in /etc/hosts /etc/resolv.conf; do [ ! -e "$root$made" ] || mount --bind "$made" "$root$made"; done
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount --bind "$state" "$root/var/lib/tidemark"
mount -o remount,bind,ro "$root"
mount -t proc proc "$root/proc"
exec chroot "$root" /usr/bin/env -i "$@"
"""


def buildah(*words: str, folder: Path | None = None) -> str:
    """What buildah prints; its images lie in the state folder, as plain folders, which need no kernel module."""
    home = state_dir() / "image"
    place = ["--root", str(home / "storage"), "--runroot", str(home / "run"), "--storage-driver", "vfs"]
    done = subprocess.run(
        ["buildah", *place, *words], cwd=folder, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, f"buildah {words[0]}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout.strip()


def make_base() -> None:
    """Make BASE, once."""
    if BASE in buildah("images", "--format", "{{.Name}}:{{.Tag}}").split():
        return
    folder = state_dir() / "image" / "base"
    shutil.rmtree(folder, ignore_errors=True)
    command = ["debootstrap", "--variant=minbase", "--include=ca-certificates", SUITE, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    trusted = folder / AUTHORITIES.relative_to("/")
    for certificate in AUTHORITIES.glob("*.crt"):
        shutil.copy(certificate, trusted)
    subprocess.run(["chroot", folder, "update-ca-certificates"], check=True, capture_output=True)
    for archives in ("var/cache/apt/archives", "var/lib/apt/lists"):
        shutil.rmtree(folder / archives)
    made = buildah("from", "scratch")
    buildah("add", "--quiet", made, f"{folder}/", "/")
    buildah("config", "--env", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", made)
    buildah("commit", "--quiet", "--rm", made, BASE)
    shutil.rmtree(folder)


def sources() -> str:
    """A digest of all that gets into the image, and of how."""
    named = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", ".dockerignore", *named]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    digest = hashlib.sha256()
    for path in (ROOT / name for name in sorted(listed) if (ROOT / name).is_file()):
        digest.update(f"{path.relative_to(ROOT)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:16]


def build() -> str:
    """Build the image of the checkout's Dockerfile, with the jars for object stores, where that was not done yet; its
    name."""
    for tool, package in (("buildah", "buildah"), ("debootstrap", "debootstrap")):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not here; on Debian: apt-get install {package}")
    with exclusive(state_dir() / "image" / "lock"):
        image = f"localhost/tidemark:{sources()}"
        make_base()
        known = buildah("images", "--format", "{{.Name}}:{{.Tag}}").split()
        if image not in known:
            # What earlier sources made; and the first stage of it, which has no name.
            for old in (name for name in known if name.startswith("localhost/tidemark:")):
                buildah("rmi", "--force", old)
            buildah("rmi", "--prune", "--force")
            mounts = [f"--volume={PIP}:{PIP}:ro"] if PIP.is_file() else []
            given = [f"--build-arg={name}={value}" for name, value in (("BASE", BASE), ("JARS", "s3"))]
            options = ["--isolation=chroot", "--format=docker", "--layers=false", *given, *mounts]
            buildah("bud", *options, "--file", "deploy/image/Dockerfile", "--tag", image, ".", folder=ROOT)
    return image


@dataclass
class Container:
    """A container's root folder; `state` is the volume that the image wants at STATE."""

    root: Path
    config: dict[str, Any]
    state: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    def command(self, words: Sequence[str]) -> list[str]:
        variables = [*self.config["Env"], *(f"{name}={value}" for name, value in self.variables.items())]
        drop = ["--clear-groups", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
        become = ["/usr/bin/setpriv", f"--reuid={self.config['User']}", f"--regid={self.config['User']}", *drop, "--"]
        inner = [*variables, *become, *self.config["Entrypoint"], *words]
        enter = ["sh", "-c", ENTER, "sh", str(self.root), str(self.state), *inner]
        return ["unshare", "--mount", "--pid", "--fork", "--kill-child", *enter]

    def run(self, *words: str, seconds: float = 240) -> "subprocess.CompletedProcess[str]":
        """Run a command in it to its end, by the image's entrypoint."""
        return subprocess.run(
            self.command(words),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )

    @contextmanager
    def running(self, *words: str, log: Path) -> Iterator["Running"]:
        """Have a command run in it; it is killed at the end, if it has not ended."""
        with log.open("w") as file:
            process = subprocess.Popen(self.command(words), stdout=file, stderr=subprocess.STDOUT)
        try:
            yield Running(process, log)
        finally:
            process.kill()
            process.wait()


@dataclass
class Running:
    """`process` is the one outside; the container's first process is its child."""

    process: "subprocess.Popen[bytes]"
    log: Path

    def stop(self, seconds: float) -> int:
        """Do what Kubernetes does, send SIGTERM to the first process; the exit code."""
        [first] = psutil.Process(self.process.pid).children()
        os.kill(first.pid, signal.SIGTERM)
        wait_for(lambda: self.process.poll() is not None, seconds, lambda: AssertionError(self.log.read_text()))
        return self.process.wait()


@contextmanager
def container(image: str, state: Path) -> Iterator[Container]:
    """A container of `image` whose state folder is `state`."""
    name = buildah("from", image)
    try:
        root = Path(buildah("mount", name))
        config = json.loads(buildah("inspect", name))["Docker"]["config"]
        state.mkdir(parents=True, exist_ok=True)
        os.chown(state, USER, USER)
        yield Container(root, config, state)
    finally:
        buildah("rm", name)
