"""Which addresses of services are taken, and that no other is shown."""

import httpx2
import pytest

from conf.urls import require_url


@pytest.mark.parametrize(
    "url", ["http://host", "https://host:8081/a", "http://[::1]:8081", "http://127.0.0.1", "http://bücher.example"]
)
def test_what_is_taken_a_client_takes(url: str) -> None:
    assert require_url("url", url, "").hostname
    httpx2.URL(url)


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "host:8081",
            "ftp://host",
            "http://",
            "http://host:abc",
            "http://host:99999",
            "http://[::1",
            "http://[x]",
        ),
        *(
            "http://999.1.1.1",
            "http://a..b",
            f"http://{'a' * 64}",
            "http://ho st",
            "http://host/a b",
            "http://☃.example",
        ),
    ],
)
def test_what_no_client_takes_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"^url must be http://HOST… or https://HOST…"):
        require_url("url", url, "")


@pytest.mark.parametrize("url", ["http://u:hunter2@host", "https://hunter2@host", "http://u:hun/hunter2@host"])
def test_a_login_is_refused_with_what_to_do_and_not_shown(url: str) -> None:
    with pytest.raises(ValueError, match=r"^url must hold no user and password: set it elsewhere$"):
        require_url("url", url, "set it elsewhere")
