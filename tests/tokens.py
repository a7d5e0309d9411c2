"""A token endpoint (OAuth 2.0, client credentials) over HTTPS, whose signed tokens a broker of tests accepts."""

import base64
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, unquote

from joserfc import jwt
from joserfc.jwk import RSAKey

from tests.https import JsonHandler, https

ISSUER, AUDIENCE, SCOPE = "https://tokens.test", "kafka", "stream"
SECONDS = 120


class TokenEndpoint:
    """What is asked for tokens, and signs them.

    Attributes:
        secrets: of the clients, by their ids; may change at any time.
        issued: the clients that got a token, in order.
    """

    def __init__(self, url: str, key: RSAKey) -> None:
        self.url, self._key = url, key
        self.secrets: dict[str, str] = {}
        self.issued: list[str] = []

    def answer(self, authorization: str, form: dict[str, list[str]]) -> tuple[int, dict[str, object]]:
        """Status and JSON of one request."""
        client, _, secret = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
        client, secret = unquote(client), unquote(secret)
        if form.get("grant_type") != ["client_credentials"]:
            return 400, {"error": "unsupported_grant_type"}
        if self.secrets.get(client) != secret:
            return 401, {"error": "invalid_client"}
        now = int(time.time())
        claims = {"sub": client, "iss": ISSUER, "aud": AUDIENCE, "scope": SCOPE, "iat": now, "exp": now + SECONDS}
        self.issued.append(client)
        token = jwt.encode({"alg": "RS256", "kid": self._key.kid}, claims, self._key)
        return 200, {"access_token": token, "token_type": "Bearer", "expires_in": SECONDS, "scope": SCOPE}


def make_key(jwks: Path) -> RSAKey:
    """A key, of which `jwks` gets the public part, as the broker reads it."""
    key = RSAKey.generate_key(2048, {"kid": "test", "use": "sig", "alg": "RS256"})
    jwks.write_text(json.dumps({"keys": [key.as_dict(private=False)]}))
    return key


@contextmanager
def token_endpoint(certificate: Path, key: RSAKey) -> Iterator[TokenEndpoint]:
    """The endpoint while the block runs; `certificate`: the server's, with its key."""

    class Handler(JsonHandler):
        def do_POST(self) -> None:  # noqa: N802
            form = parse_qs(self.body().decode())
            self.answer(*endpoint.answer(self.headers.get("Authorization", ""), form))

    with https(certificate, Handler) as address:
        endpoint = TokenEndpoint(f"{address}/token", key)
        yield endpoint
