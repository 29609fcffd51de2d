"""A small identity provider on loopback: discovery, keys, authorization codes with PKCE, signed tokens."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, RSAKey

CLIENT_ID, CLIENT_SECRET = "cloud-hub", "the-secret-of-the-client"


class IdentityProvider:
    """Everybody who comes is ``person``, and agrees at once."""

    def __init__(self, *, kind: str = "RS256") -> None:
        self.kind, self.person = kind, {"sub": "ada-1", "preferred_username": "ada", "roles": ["operator"]}
        self.codes: dict[str, dict[str, str]] = {}
        self.asked: list[str] = []
        self.down = False
        self.rotate()
        server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        server.daemon_threads = True
        self._server = server
        self.issuer = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()

    def rotate(self) -> None:
        """New keys; tokens of the old ones are not believed any more once somebody asks."""
        kid = secrets.token_hex(4)
        made = (
            RSAKey.generate_key(2048, {"kid": kid})
            if self.kind == "RS256"
            else ECKey.generate_key("P-256", {"kid": kid})
        )
        self.key: RSAKey | ECKey = made

    def token(self, header: dict[str, Any] | None = None, key: Any = None, **changes: Any) -> str:
        """A token for the hub; a claim that is changed to None is left out."""
        now = int(time.time())
        claims = {"iss": self.issuer, "aud": CLIENT_ID, "iat": now, "exp": now + 300, **self.person, **changes}
        claims = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode({"alg": self.kind, "kid": self.key.kid, **(header or {})}, claims, key or self.key)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method: str, url: str, body: str, headers: Any) -> tuple[int, dict[str, str], Any]:
        parts = urlsplit(url)
        query = {name: values[-1] for name, values in parse_qs(parts.query or body).items()}
        self.asked.append(parts.path)
        if self.down:
            return 503, {}, {}
        if parts.path == "/.well-known/openid-configuration":
            names = {"authorization_endpoint": "/authorize", "token_endpoint": "/token", "jwks_uri": "/keys"}
            return 200, {}, {"issuer": self.issuer, **{name: self.issuer + path for name, path in names.items()}}
        if parts.path == "/keys":
            return 200, {}, KeySet([self.key]).as_dict(private=False)
        if parts.path == "/authorize":
            assert (query["client_id"], query["response_type"], query["code_challenge_method"]) == (
                CLIENT_ID,
                "code",
                "S256",
            )
            code = secrets.token_urlsafe(16)
            self.codes[code] = query
            return (
                302,
                {"location": f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}"},
                {},
            )
        if parts.path == "/token" and method == "POST":
            return self._exchange(query, headers)
        return 404, {}, {}

    def _exchange(self, query: dict[str, str], headers: Any) -> tuple[int, dict[str, str], Any]:
        begun = self.codes.pop(query.get("code", ""), None)
        basic = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
        challenge = base64.urlsafe_b64encode(hashlib.sha256(query.get("code_verifier", "").encode()).digest()).decode()
        if (
            begun is None
            or headers.get("authorization") != f"Basic {basic}"
            or begun["code_challenge"] != challenge.rstrip("=")
            or begun["redirect_uri"] != query["redirect_uri"]
        ):
            return 400, {}, {"error": "invalid_grant"}
        token = self.token(nonce=begun["nonce"])
        return 200, {}, {"access_token": "opaque", "token_type": "Bearer", "expires_in": 300, "id_token": token}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
                status, headers, content = provider.answer(self.command, self.path, body, self.headers)
                data = json.dumps(content).encode()
                self.send_response(status)
                for name, value in {
                    **headers,
                    "content-type": "application/json",
                    "content-length": str(len(data)),
                }.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = _serve

            def log_message(self, *_: object) -> None:
                pass

        return Handler
