"""A server on loopback that answers what a test tells it to, for what a real registry does not do at will."""

import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

Answer = tuple[int, object]


class FakeRegistry(ThreadingHTTPServer):
    """Gives `answers` in turn, the last one forever; a text goes out as HTML, all else as JSON. What it was told to
    `keep` it gives where a registry has that.

    `requests` are the paths that were asked for; `authorization` is the last header of that name. `headers` go out
    with each answer; with `drip` an answer's bytes go out one by one, so many seconds apart.
    """

    daemon_threads = True

    def __init__(self, *answers: Answer, context: ssl.SSLContext | None = None, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.answers, self.requests, self.authorization = list(answers), list[str](), ""
        self.headers, self.drip = dict[str, str](), 0.0
        self.hold, self.ended = Event(), Event()
        self.hold.set()
        self.places = dict[str, object]()
        self._scheme = "https" if context else "http"
        if context:
            self.socket = context.wrap_socket(self.socket, server_side=True)

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.server_port}"

    def keep(self, subject: str, version: int, id: int, schema: str, **more: object) -> None:
        """Have a version of a subject; `more`: its `schemaType` and `references`."""
        versions = f"/subjects/{subject}/versions"
        listed = self.places.setdefault(versions, [])
        assert isinstance(listed, list)
        listed.append(version)
        self.places[f"{versions}/{version}"] = {
            "subject": subject,
            "version": version,
            "id": id,
            "schema": schema,
            **more,
        }
        self.places[f"/schemas/ids/{id}"] = {"schema": schema, **more}

    def handle_error(self, *_: object) -> None:
        """A client that does not trust the certificate hangs up: no news."""


class _Handler(BaseHTTPRequestHandler):
    server: FakeRegistry

    def do_GET(self) -> None:
        server = self.server
        server.requests.append(self.path)
        server.authorization = self.headers.get("Authorization", "")
        server.hold.wait()
        kept = server.places.get(self.path.partition("?")[0])
        if kept is not None:
            status, body = 200, kept
        else:
            status, body = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
        kind, text = ("text/html", body) if isinstance(body, str) else ("application/json", json.dumps(body))
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        for name, value in server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if not server.drip:
            self.wfile.write(text.encode())
        for byte in text.encode() if server.drip else b"":
            if not server.ended.wait(server.drip):
                self.wfile.write(bytes([byte]))

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Nothing: the test says what it wants to know."""


@contextmanager
def answering(*answers: Answer, context: ssl.SSLContext | None = None, port: int = 0) -> Iterator[FakeRegistry]:
    """A server that gives `answers`, ended with the block."""
    server = FakeRegistry(*answers, context=context, port=port)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.hold.set()
        server.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()
