"""A real S3 server: S3Proxy on a free port of loopback, its objects in memory."""

import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
from pyarrow import fs

from local import jars, processes
from local.processes import HOST
from tests.jobs.pipeline.monitoring.serving import free_port
from tests.jvm import SERVER_OPTIONS

START_SECONDS = 120
REGION = "us-east-1"
BUCKET = "tide"
LOG = """<configuration><appender name="OUT" class="ch.qos.logback.core.ConsoleAppender"><encoder>
<pattern>%d %level %logger{0} %msg%n</pattern></encoder></appender>
<root level="INFO"><appender-ref ref="OUT"/></root></configuration>
"""
# Of the stores that it has, the one in memory knows keys alone, as S3 does: those on a disk make folders of keys that
# end with a slash, which S3A takes for files.
STORE = "transient"


class S3Proxy:
    """One server with an empty bucket; a context manager that starts and ends it."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.log = folder, folder / "s3proxy.log"
        self._port = free_port()
        self.key, self.secret = "tidemark", secrets.token_hex(16)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://{HOST}:{self._port}"

    def variables(self) -> dict[str, str]:
        """What programs are told of it, by AWS's own names."""
        access = {"AWS_ACCESS_KEY_ID": self.key, "AWS_SECRET_ACCESS_KEY": self.secret, "AWS_REGION": REGION}
        place = {"AWS_ENDPOINT_URL": self.endpoint, "AWS_ALLOW_HTTP": "true", "AWS_EC2_METADATA_DISABLED": "true"}
        return access | place

    def files(self) -> fs.FileSystem:
        """Its objects, as another client sees them."""
        where = {"endpoint_override": f"{HOST}:{self._port}", "scheme": "http", "region": REGION}
        return fs.S3FileSystem(access_key=self.key, secret_key=self.secret, allow_bucket_creation=True, **where)

    def __enter__(self) -> "S3Proxy":
        jars.fetch("s3proxy")
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / "logback.xml").write_text(LOG)
        settings = {
            "s3proxy.endpoint": self.endpoint,
            "s3proxy.authorization": "aws-v2-or-v4",
            "s3proxy.identity": self.key,
            "s3proxy.credential": self.secret,
            "s3proxy.ignore-unknown-headers": "true",  # of checksums: a copy of S3A's would be refused for them
            "jclouds.provider": STORE,
            "jclouds.identity": "none",
            "jclouds.credential": "none",
        }
        properties = self._folder / "s3proxy.properties"
        properties.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        command = [processes.java(), "-Xmx512m", *SERVER_OPTIONS]
        command += [f"-Dlogback.configurationFile={self._folder / 'logback.xml'}", "-cp", jars.class_path("s3proxy")]
        command = processes.ending_with_us([*command, "org.gaul.s3proxy.Main", "--properties", str(properties)])
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        processes.wait_for(self._answers, START_SECONDS, lambda: AssertionError(f"no S3Proxy: see {self.log}"))
        self.files().create_dir(BUCKET)
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"S3Proxy ended: see {self.log}")
        try:
            httpx2.get(self.endpoint, trust_env=False)
            return True
        except httpx2.TransportError:
            return False


@contextmanager
def in_environment(variables: dict[str, str]) -> Iterator[None]:
    """Set variables for this process and those that it starts, while the block runs."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
