"""An HTTPS server of a test's own, which answers in JSON."""

import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from local.processes import HOST


class JsonHandler(BaseHTTPRequestHandler):
    """Answers requests by `answer`; its methods `do_GET` and the like say to which."""

    content_type = "application/json"

    def body(self) -> bytes:
        """What the request sent."""
        return self.rfile.read(int(self.headers["Content-Length"]))

    def answer(self, status: int, body: object) -> None:
        """Send `body` as JSON."""
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", self.content_type)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def https(certificate: Path, handler: type[JsonHandler]) -> Iterator[str]:
    """The server's address while the block runs; `certificate`: the server's, with its key."""
    with ThreadingHTTPServer((HOST, 0), handler) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"https://{HOST}:{server.server_port}"
        server.shutdown()
        thread.join()
