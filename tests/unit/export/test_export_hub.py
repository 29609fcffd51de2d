"""The client of a hub: certificates, tokens, and what it says when either is missing."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from model_export.errors import HubRefusedError, HubUnreachableError, RequestError
from model_export.hub import Hub


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        right = self.headers.get("Authorization") == "Bearer el_1_secret"
        body = json.dumps({"hello": "publisher"} if right else {"error": "who are you?"}).encode()
        self.send_response(200 if right else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A key and a certificate for 127.0.0.1, signed by itself."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, SHA256())
    )
    path = tmp_path / "hub.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(private + made.public_bytes(Encoding.PEM))
    return path


@pytest.fixture
def address(certificate: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *args: None  # type: ignore[method-assign]  # a client that hangs up is one test
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"https://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_hub_with_a_ca_of_its_own_is_spoken_to_with_that_ca_alone(address: str, certificate: Path) -> None:
    with Hub(address, token="el_1_secret", ca_cert=certificate) as hub:
        assert hub.ask("GET", "/api/v1/trust") == {"hello": "publisher"}
    with Hub(address, token="el_1_secret", pause_s=0.001) as hub, pytest.raises(HubUnreachableError) as caught:
        hub.ask("GET", "/api/v1/trust")
    assert "--ca-cert" in caught.value.hint


def test_who_has_no_token_is_told_where_to_give_one_and_a_token_is_in_no_error(address: str, certificate: Path) -> None:
    with Hub(address, ca_cert=certificate) as hub, pytest.raises(HubRefusedError, match="who are you") as caught:
        hub.ask("GET", "/api/v1/trust")
    assert (caught.value.status, "MODEL_EXPORT_TOKEN" in caught.value.hint) == (401, True)
    with Hub(address, token="el_1_other", ca_cert=certificate) as hub, pytest.raises(HubRefusedError) as caught:
        hub.ask("GET", "/api/v1/trust")
    assert "el_1_other" not in str(caught.value) + caught.value.hint


@pytest.mark.parametrize("clear", ["http://hub.example:8080", "http://192.0.2.7", "http://127.0.0.1.example", "http:"])
def test_a_token_never_crosses_a_network_in_clear_text(clear: str) -> None:
    with pytest.raises(RequestError, match="in clear text") as caught:
        Hub(clear, token="el_1_secret")
    assert "el_1_secret" not in str(caught.value)


@pytest.mark.parametrize("own", ["http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1", "https://hub.example"])
def test_a_token_is_used_on_this_machine_and_with_tls(own: str) -> None:
    Hub(own, token="el_1_secret").__exit__(None, None, None)


def test_a_file_that_is_no_ca_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    for path in (tmp_path / "ca.pem", tmp_path / "absent.pem"):
        with pytest.raises(RequestError, match="no certificate of a CA"):
            Hub("https://hub.example", ca_cert=path)
