"""Says who may see the page: everyone who knows the token; without one, programs on this machine, by its own names.

Every answer forbids scripts that are not the page's own, frames around it, and copies of it in caches.
"""

import hmac
import ipaddress
from hashlib import sha256
from urllib.parse import parse_qs

from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from conf import setting_sources
from conf.errors import TidemarkError
from conf.settings import Page

LEAST_TOKEN = 16  # characters
COOKIE = "tidemark_page"
SIGN_IN = "/sign-in"
# Against DNS rebinding: a site whose name points to this machine could have the browser read the page as its own.
OWN_NAMES = ("127.0.0.1", "localhost", "[::1]", "::1")
MOST_FORM_BYTES = 4_096
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


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


def guards(token: str, only_this_machine: bool) -> list[Middleware]:
    """Return the checks that every request passes, in this order; every answer gets HEADERS.

    Args:
        token: it is asked for in the header `Authorization: Bearer`, or once in a form, which leaves a cookie.
    """

    async def add_headers(request: Request, call_next: RequestResponseEndpoint) -> Response:
        answer = await call_next(request)
        answer.headers.update(HEADERS)
        return answer

    async def require_known(request: Request, call_next: RequestResponseEndpoint) -> Response:
        is_open = request.url.path == SIGN_IN or request.url.path.startswith("/static/")
        if is_open or is_known(request, token):
            return await call_next(request)
        if "text/html" in request.headers.get("accept", ""):
            return RedirectResponse(SIGN_IN, status_code=303)
        text = "the token is missing or wrong: Authorization: Bearer TOKEN\n"
        return Response(text, 401, {"WWW-Authenticate": "Bearer"})

    hosts = [Middleware(TrustedHostMiddleware, allowed_hosts=list(OWN_NAMES))] if only_this_machine else []
    known = [Middleware(BaseHTTPMiddleware, dispatch=require_known)] if token else []
    return [Middleware(BaseHTTPMiddleware, dispatch=add_headers), *hosts, *known]


def is_known(request: Request, token: str) -> bool:
    """Return whether the request carries the token, or the cookie that it was exchanged for."""
    bearer = request.headers.get("authorization", "").removeprefix("Bearer ").encode()
    return hmac.compare_digest(bearer, token.encode()) or hmac.compare_digest(
        request.cookies.get(COOKIE, "").encode(), cookie_of(token).encode()
    )


def cookie_of(token: str) -> str:
    """Return the value that a browser keeps in place of the token; the token cannot be found from it."""
    return hmac.new(token.encode(), b"tidemark page", sha256).hexdigest()


async def sign_in(request: Request, token: str) -> Response | None:
    """Return the answer to a form with the right token; None for a wrong one."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_FORM_BYTES:
            return None
    given = parse_qs(body.decode(errors="replace")).get("token", [""])[0]
    if not hmac.compare_digest(given.encode(), token.encode()):
        return None
    answer = RedirectResponse("/", status_code=303)
    secure = request.url.scheme == "https"
    answer.set_cookie(COOKIE, cookie_of(token), httponly=True, samesite="strict", secure=secure)
    return answer
