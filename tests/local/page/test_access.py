"""Who may see the page, and what every answer forbids."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from conf.errors import TidemarkError
from conf.settings import Page
from local.page.access import COOKIE, cookie_of, is_loopback, require_token
from local.page.server import listen, main
from tests.local.page.browser import Browser

TOKEN = "a-token-of-the-test"
HTML = {"accept": "text/html"}


def test_another_name_for_this_machine_is_refused(tmp_path: Path) -> None:
    browser = Browser(tmp_path)
    assert browser.ask("/accounts", {"host": "attacker.example"}).status_code == 400
    for name in ("127.0.0.1:8400", "localhost:8400", "[::1]:8400"):
        assert browser.ask("/accounts", {"host": name}).status_code == 200


def test_every_answer_allows_the_pages_own_scripts_alone(tmp_path: Path) -> None:
    browser = Browser(tmp_path)
    for path in ("/accounts", "/static/page.js", "/no-such-page"):
        headers = browser.ask(path).headers
        assert "script-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"


def test_without_the_token_nothing_is_shown(tmp_path: Path) -> None:
    browser = Browser(tmp_path, token=TOKEN, only_this_machine=False, host="http://pages.example:8400")
    assert browser.ask("/accounts").status_code == 401
    assert browser.ask("/accounts", {"authorization": "Bearer wrong"}).status_code == 401
    assert browser.ask("/accounts", {"cookie": f"{COOKIE}=wrong"}).status_code == 401
    sent_on = browser.ask("/accounts", HTML)
    assert (sent_on.status_code, sent_on.headers["location"]) == (303, "/sign-in")
    assert browser.ask("/sign-in", HTML).status_code == 200


def test_the_token_opens_the_page_in_a_header_or_once_in_the_form(tmp_path: Path) -> None:
    browser = Browser(tmp_path, token=TOKEN, only_this_machine=False, host="http://pages.example:8400")
    assert browser.ask("/accounts", {"authorization": f"Bearer {TOKEN}"}).status_code == 200
    assert browser.ask("/sign-in", form={"token": "wrong"}).status_code == 401
    entered = browser.ask("/sign-in", form={"token": TOKEN})
    cookie = entered.headers["set-cookie"]
    assert (entered.status_code, TOKEN in cookie) == (303, False)
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie
    assert browser.ask("/accounts", {"cookie": f"{COOKIE}={cookie_of(TOKEN)}"}).status_code == 200


def test_nothing_can_be_changed(tmp_path: Path) -> None:
    assert Browser(tmp_path).ask("/accounts", form={"a": "b"}).status_code == 405


def page(host: str, token: str = "", port: int = 0) -> Page:
    return Page(port=port, host=host, token=SecretStr(token))


@pytest.mark.parametrize(
    ("host", "loopback"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("me", False)]
)
def test_what_only_this_machine_reaches(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def test_beyond_this_machine_a_token_is_needed() -> None:
    require_token(page("127.0.0.1"))
    require_token(page("0.0.0.0", TOKEN))
    with pytest.raises(TidemarkError, match=r"BAD_SETTING: page.host 0.0.0.0 .* TIDEMARK_PAGE__TOKEN"):
        require_token(page("0.0.0.0"))
    with pytest.raises(TidemarkError, match=r"BAD_SETTING: page\.token has 3 characters"):
        require_token(page("127.0.0.1", "abc"))


def test_a_token_on_the_command_line_is_refused() -> None:
    with pytest.raises(TidemarkError, match=r"BAD_ARGUMENTS: page\.token would show in the list of processes"):
        main(["--set", f"page.token={TOKEN}"])


def test_a_port_in_use_is_said() -> None:
    with listen(page("127.0.0.1")) as held:
        taken = held.getsockname()[1]
        with pytest.raises(TidemarkError, match=rf"PAGE_NOT_SERVED: .* {taken} "):
            listen(page("127.0.0.1", port=taken))
