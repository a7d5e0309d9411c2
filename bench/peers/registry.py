"""Serves the file registry over HTTP, as Confluent's REST API, to peers that know no registry but that."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from conf.errors import TidemarkError
from local.processes import HOST
from schemas.registry import FileRegistry

BY_ID = "/schemas/ids/"


class Served:
    """Where the registry is, and when somebody first asked it for a schema (seconds since 1970; None: never).

    A peer that knows no schema until it has read a record asks with the first of them.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.first_asked: float | None = None


@contextmanager
def served(registry: FileRegistry) -> Iterator[Served]:
    """Answer `GET /schemas/ids/ID` on a free port of loopback while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            here.first_asked = here.first_asked or time.time()
            try:
                id = int(self.path.partition("?")[0].removeprefix(BY_ID))
                status, body = 200, {"schema": registry.schema(id)}
            except (ValueError, TidemarkError) as refusal:
                status, body = 404, {"error_code": "40403", "message": str(refusal)}
            text = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer((HOST, 0), Handler) as server:
        here = Served(f"http://{HOST}:{server.server_port}")
        Thread(target=server.serve_forever, daemon=True).start()
        yield here
        server.shutdown()
