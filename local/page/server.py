"""Serves the page (`local/tidemark page`): each view is read in the background, and rendered here, on the server."""

import argparse
import shlex
import socket
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvicorn
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from conf import command_line
from conf.errors import TidemarkError
from conf.settings import Page, Settings
from local.page import accounts, charts, rejected_and_late, runs, topics
from local.page.access import SIGN_IN, guards, is_loopback, require_token, sign_in
from local.page.background import Answer, Brokers, Latest

FOLDER = Path(__file__).resolve().parent
CHECK_SECONDS = 60.0
GRACE_SECONDS = 2  # for answers that are under way when the page is stopped
# Path, and what the link says.
VIEWS = {
    "/accounts": "Accounts",
    "/queries": "Queries",
    "/quarantine": "Quarantine",
    "/late": "Late rows",
    "/replays": "Replays",
    "/topics": "Topics",
    "/history": "History",
}


def main(argv: Sequence[str]) -> int:
    """Serve the page; returns when it is stopped.

    Raises:
        TidemarkError: BAD_SETTING, PAGE_NOT_SERVED.
        SystemExit: 2, where the command line is wrong.
    """
    parser = argparse.ArgumentParser(
        prog="local/tidemark page",
        description="Show accounts, queries, rejects, late rows, replays, topics and history in a browser; read-only.",
        epilog="It listens where page.host and page.port say, and asks for page.token where that is set.",
        parents=[command_line.settings_options(with_roots=True)],
    )
    options = command_line.parse(parser, argv)
    page = command_line.settings_of(options).page
    require_token(page)
    with listen(page) as listening:
        port = listening.getsockname()[1]
        host = f"[{page.host}]" if ":" in page.host else page.host
        print(f"the page is at http://{host}:{port}/ (Ctrl-C ends it)", flush=True)
        # Settings are read again for each view: the embedded broker may start after the page.
        app = create_app(lambda: command_line.settings_of(options), page.token, is_loopback(page.host))
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=GRACE_SECONDS
        )
        uvicorn.Server(config).run(sockets=[listening])
    return 0


def listen(page: Page) -> socket.socket:
    """Return the socket that the page is served on; raises TidemarkError PAGE_NOT_SERVED."""
    try:
        family = socket.AF_INET6 if ":" in page.host else socket.AF_INET
        return socket.create_server((page.host, page.port), family=family)
    except OSError as exc:
        what = f"nothing can be served on page.port {page.port} of {page.host}: {exc.strerror}"
        remedy = "choose another by --set page.port=8401; 0 takes one that is free"
        raise TidemarkError("PAGE_NOT_SERVED", what, remedy) from exc


def create_app(load: Callable[[], Settings], token: SecretStr, only_this_machine: bool) -> Starlette:
    """Return the page as an ASGI application.

    Args:
        load: reads the settings, as they are now.
        token: that is asked for; empty for none.
    """
    views = Views(load, token)
    routes = [
        Route("/", lambda request: RedirectResponse("/accounts")),
        Route("/accounts", views.accounts),
        Route("/queries", views.queries),
        Route("/queries/{name:path}", views.query),
        Route("/quarantine", views.quarantine),
        Route("/quarantine/samples", views.samples),
        Route("/late", views.late),
        Route("/replays", views.replays),
        Route("/topics", views.topics),
        Route("/history", views.history),
        Route("/history/{query:path}/{batch:int}", views.batch),
        Route(SIGN_IN, views.sign_in, methods=["GET", "POST"]),
        Mount("/static", StaticFiles(directory=FOLDER / "static")),
    ]
    return Starlette(routes=routes, middleware=guards(token.get_secret_value(), only_this_machine))


class Views:
    """Answers requests; what they share is kept here."""

    def __init__(self, load: Callable[[], Settings], token: SecretStr) -> None:
        self._load, self._token = load, token
        self._latest, self._brokers = Latest(), Brokers()
        self._templates = Environment(
            loader=FileSystemLoader(FOLDER / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters |= {"number": number, "time": time_text, "ago": ago}

    def accounts(self, request: Request) -> Response:
        checked = self._latest.get(
            "check", lambda: accounts.check_everything(self._load(), self._brokers), CHECK_SECONDS, 0.0
        )
        answer = self._latest.get(
            "accounts", lambda: accounts.read_accounts(self._load(), self._brokers, checked.content)
        )
        return self._render(request, "accounts.html", answer, "local/tidemark coverage check", checked=checked)

    def queries(self, request: Request) -> Response:
        answer = self._latest.get("queries", lambda: runs.read_queries(self._load(), self._brokers))
        return self._render(request, "queries.html", answer, "local/tidemark history")

    def query(self, request: Request) -> Response:
        name = request.path_params["name"]
        answer = self._latest.get(f"query {name}", lambda: charts.read_charts(self._load(), name))
        return self._render(request, "query.html", answer, runs.Selection(name).command, name=name)

    def quarantine(self, request: Request) -> Response:
        answer = self._latest.get("quarantine", lambda: rejected_and_late.read_rejects(self._load(), self._brokers))
        return self._render(request, "quarantine.html", answer, "local/tidemark quarantine list")

    def samples(self, request: Request) -> Response:
        group = rejected_and_late.Group(*(request.query_params.get(name, "") for name in ("topic", "error", "rule")))
        answer = self._latest.get(f"samples {group}", lambda: rejected_and_late.read_samples(self._load(), group))
        return self._render(request, "samples.html", answer, group.command("inspect"), group=group)

    def late(self, request: Request) -> Response:
        answer = self._latest.get("late", lambda: rejected_and_late.read_late(self._load()))
        command = answer.content.command if answer.content else "local/tidemark history"
        return self._render(request, "late.html", answer, command)

    def replays(self, request: Request) -> Response:
        answer = self._latest.get("replays", lambda: runs.read_replays(self._load()))
        return self._render(request, "replays.html", answer, "local/tidemark replay list")

    def topics(self, request: Request) -> Response:
        answer = self._latest.get("topics", lambda: topics.read_topics(self._load(), self._brokers))
        return self._render(request, "topics.html", answer, "local/tidemark topics plan")

    def history(self, request: Request) -> Response:
        params = request.query_params
        chosen = runs.Selection(params.get("name", ""), params.get("since", ""), params.get("failed") == "1")
        answer = self._latest.get(f"history {chosen}", lambda: runs.read_history(self._load(), chosen))
        return self._render(request, "history.html", answer, chosen.command, chosen=chosen)

    def batch(self, request: Request) -> Response:
        query, batch = request.path_params["query"], request.path_params["batch"]
        answer = self._latest.get(f"batch {query} {batch}", lambda: runs.read_batch(self._load(), query, batch))
        command = f"{runs.COMMAND} explain {shlex.quote(query)} {batch}"
        return self._render(request, "batch.html", answer, command, query=query, batch=batch)

    async def sign_in(self, request: Request) -> Response:
        if not self._token.get_secret_value():
            return RedirectResponse("/", status_code=303)
        wrong = False
        if request.method == "POST":
            entered = await sign_in(request, self._token.get_secret_value())
            if entered is not None:
                return entered
            wrong = True
        text = self._templates.get_template("sign_in.html").render(wrong=wrong)
        return HTMLResponse(text, status_code=401 if wrong else 200)

    def _render(self, request: Request, template: str, answer: Answer, command: str, **more: Any) -> Response:
        context = {
            "views": VIEWS,
            "path": request.url.path,
            "answer": answer,
            "it": answer.content,
            "command": command,
            "now": datetime.now(UTC),
            **more,
        }
        return HTMLResponse(self._templates.get_template(template).render(context))


def number(value: float | None) -> str:
    """Return a number with separators; a hyphen for none."""
    if value is None:
        return "-"
    return f"{value:,.1f}" if isinstance(value, float) and abs(value) < 10 else f"{value:,.0f}"


def time_text(at: datetime | None) -> str:
    """Return a time in UTC to the second; empty for none."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z" if at else ""


def ago(seconds: float | None) -> str:
    """Return a duration in its largest unit; a hyphen for none."""
    if seconds is None:
        return "-"
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:,.1f} {unit}" if seconds < 10 * size else f"{seconds / size:,.0f} {unit}"
    return f"{seconds:,.0f} s"
