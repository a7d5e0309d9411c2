"""A folder of schemas, served as Confluent's REST API over HTTPS to whoever knows user and password."""

import base64
import json
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from conf.errors import TidemarkError
from schemas.registry_folder import FileRegistry

HOST = "127.0.0.1"
ID, SUBJECT = re.compile(r"/schemas/ids/(\d+)"), re.compile(r"/subjects/([^/]+)/versions(?:/(\d+))?")


@contextmanager
def served(registry: FileRegistry, certificate: Path, user: str, password: str) -> Iterator[str]:
    """The registry's address while the block runs; `certificate`: the server's, with its key."""
    login = f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(_answer(registry, self.path.partition("?")[0]))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            subject = SUBJECT.match(self.path)
            assert subject is not None, self.path
            self._send((200, {"id": registry.register(subject[1], body["schema"])}))

        def _send(self, answer: tuple[int, object]) -> None:
            status, body = answer if self.headers.get("Authorization") == login else (401, {"error_code": 401})
            text = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer((HOST, 0), Handler) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"https://{HOST}:{server.server_port}"
        server.shutdown()
        thread.join()


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
