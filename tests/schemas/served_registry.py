"""A folder of schemas, served as Confluent's REST API over HTTPS to whoever knows user and password."""

import base64
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conf.errors import TidemarkError
from schemas.registry import FileRegistry
from tests.https import JsonHandler, https

ID, SUBJECT = re.compile(r"/schemas/ids/(\d+)"), re.compile(r"/subjects/([^/]+)/versions(?:/(\d+))?")


@contextmanager
def served(registry: FileRegistry, certificate: Path, user: str, password: str) -> Iterator[str]:
    """The registry's address while the block runs; `certificate`: the server's, with its key."""
    login = f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"

    class Handler(JsonHandler):
        content_type = "application/vnd.schemaregistry.v1+json"

        def do_GET(self) -> None:  # noqa: N802
            self._send(_answer(registry, self.path.partition("?")[0]))

        def do_POST(self) -> None:  # noqa: N802
            body = json.loads(self.body())
            subject = SUBJECT.match(self.path)
            assert subject is not None, self.path
            self._send((200, {"id": registry.register(subject[1], body["schema"])}))

        def _send(self, answer: tuple[int, object]) -> None:
            self.answer(*(answer if self.headers.get("Authorization") == login else (401, {"error_code": 401})))

    with https(certificate, Handler) as address:
        yield address


def _answer(registry: FileRegistry, path: str) -> tuple[int, object]:
    try:
        if found := ID.fullmatch(path):
            return 200, {"schema": registry.schema(int(found[1]))}
        if path == "/subjects":
            return 200, registry.subjects()
        if found := SUBJECT.fullmatch(path):
            versions = {version.version: version for version in registry.versions(found[1])}
            if not found[2]:
                return 200, sorted(versions)
            version = versions[int(found[2])]
            return 200, {"subject": found[1], "id": version.id, "version": version.version, "schema": version.text}
    except TidemarkError:
        return 404, {"error_code": 40401, "message": "not found"}
    return 404, {"error_code": 404, "message": "no such place"}
