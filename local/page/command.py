"""Runs `local/tidemark page`: serves the page until it is stopped."""

import argparse
import ipaddress
import socket
from collections.abc import Sequence

import uvicorn

from conf import command_line, setting_sources
from conf.errors import TidemarkError
from conf.settings import Page
from local.page.server import create_app

LEAST_TOKEN = 16  # characters
GRACE_SECONDS = 2  # for answers that are under way when the page is stopped


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
        print(f"the page is at http://{_in_address(page.host)}:{port}/ (Ctrl-C ends it)", flush=True)
        # Settings are read again for each view: the embedded broker may start after the page.
        app = create_app(lambda: command_line.settings_of(options), page.token, is_loopback(page.host))
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=GRACE_SECONDS
        )
        uvicorn.Server(config).run(sockets=[listening])
    return 0


def require_token(page: Page) -> None:
    """Refuse to listen beyond this machine without a token; raises TidemarkError BAD_SETTING."""
    token, variable = page.token.get_secret_value(), setting_sources.variable_of("page.token")
    if not token and not is_loopback(page.host):
        what = f"page.host {page.host} can be reached from other machines, and page.token is empty"
        raise TidemarkError("BAD_SETTING", what, f"set the variable {variable}, or leave page.host at 127.0.0.1")
    if token and len(token) < LEAST_TOKEN:
        remedy = f"take {LEAST_TOKEN} or more, for example of `openssl rand -hex 16`"
        raise TidemarkError("BAD_SETTING", f"page.token has {len(token)} characters", remedy)


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches what listens on `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(page: Page) -> socket.socket:
    """Return the socket that the page is served on; raises TidemarkError PAGE_NOT_SERVED."""
    try:
        family = socket.AF_INET6 if ":" in page.host else socket.AF_INET
        return socket.create_server((page.host, page.port), family=family)
    except OSError as exc:
        what = f"nothing can be served on page.port {page.port} of {page.host}: {exc.strerror}"
        remedy = "choose another by --set page.port=8401; 0 takes one that is free"
        raise TidemarkError("PAGE_NOT_SERVED", what, remedy) from exc


def _in_address(host: str) -> str:
    return f"[{host}]" if ":" in host else host
