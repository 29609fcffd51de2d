"""Enrolment tokens and certificates in wrong hands, at a real HTTPS server."""

from __future__ import annotations

import http.server
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from cloud_hub.access.principals import Role
from edge_agent.identity import IdentityError, load
from edge_agent.identity.enrol import enrol
from edge_agent.identity.store import NEW
from edgeloop.protocol.enrolment import EnrolmentToken
from tests.doubles.enrolling import Applicant, weak_request
from tests.doubles.fleet_ca import FleetCA
from tests.unit.hub.api_kit import ApiHub

DAY_S = 86_400.0


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiHub]:
    hub = ApiHub(tmp_path_factory.mktemp("hub") / "data", insecure=False, request_rate=0)
    hub.clock.now = time.time()  # certificates are made by the system's
    # Wrong tokens by the dozen are this file's business; how guesses are slowed down is tested elsewhere.
    hub.hub.access.lockout.wrong = lambda *_: None  # type: ignore[method-assign]
    yield hub
    hub.close()


def url(hub: ApiHub) -> str:
    return str(hub.http.base_url)


def trust(hub: ApiHub) -> bytes:
    assert hub.hub.identities is not None
    return hub.hub.identities.own.trust


def token(hub: ApiHub, **wanted: Any) -> str:
    return str(hub.post("enrolments", wanted, 201)["token"])


def redeem(hub: ApiHub, body: dict[str, Any]) -> httpx.Response:
    with hub.client() as nobody:
        return nobody.post("/api/v1/enrolments/redeem", json=body)


def enrolled(hub: ApiHub, folder: Path, name: str, **wanted: Any) -> Applicant:
    device = Applicant(name, folder / name)
    answer = redeem(hub, device.body(token(hub, **wanted)))
    assert answer.status_code == 200, answer.text
    device.keep(answer.json()["certificate"])
    return device


def test_a_token_is_good_for_one_key(hub: ApiHub, tmp_path: Path) -> None:
    text = token(hub)
    first, second = Applicant("once-1", tmp_path / "1"), Applicant("once-2", tmp_path / "2")
    assert redeem(hub, first.body(text)).status_code == 200
    assert redeem(hub, second.body(text)).status_code == 401
    assert redeem(hub, {**second.body(text), "device": "once-1"}).status_code == 401


def test_a_lost_answer_is_given_again_to_the_same_key_even_when_the_token_has_ended(
    hub: ApiHub, tmp_path: Path
) -> None:
    text, device = token(hub, expires_s=60), Applicant("lost-1", tmp_path)
    first = redeem(hub, device.body(text)).json()
    hub.clock.now += 3600
    again = redeem(hub, device.body(text))
    assert again.status_code == 200
    assert again.json()["certificate"] == first["certificate"]
    assert redeem(hub, device.body(text, device="lost-2")).status_code == 403, "nor a second name for it"


def test_tokens_that_have_ended_were_withdrawn_or_guessed(hub: ApiHub, tmp_path: Path) -> None:
    device = Applicant("late-1", tmp_path)
    ended, withdrawn, good = token(hub, expires_s=60), token(hub), token(hub)
    hub.clock.now += 61
    hub.http.delete(f"/api/v1/enrolments/{withdrawn.split('.')[0]}")
    parts = good.split(".")
    guessed = ".".join([parts[0], "A" * 32, *parts[2:]])
    invented = ".".join(["0" * 12, *parts[1:]])
    answers = [redeem(hub, device.body(text)) for text in (ended, withdrawn, guessed, invented)]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.text for answer in answers}) == 1, "an answer tells nothing about the token"
    assert all(part not in answers[2].text for part in parts[:2])
    assert redeem(hub, device.body("nonsense")).status_code == 422
    assert redeem(hub, device.body(good)).status_code == 200


def test_the_secret_is_nowhere_in_the_records(hub: ApiHub) -> None:
    secret = token(hub).split(".")[1].encode()
    folder = hub.hub.settings.data
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert not any(secret in path.read_bytes() for path in files)
    assert secret.decode() not in hub.http.get("/api/v1/enrolments").text


@pytest.mark.parametrize(
    "name", ["#", "+", "$SYS", "cam/1", "hub:default", "", "ü", "a" * 65, "..%2f", "cam 1", "cam\n1", "*"]
)
def test_names_that_mean_something_else_are_refused(hub: ApiHub, tmp_path: Path, name: str) -> None:
    device = Applicant("odd", tmp_path)
    assert redeem(hub, device.body(token(hub), device=name)).status_code == 422


def test_a_token_for_one_name_gives_no_other(hub: ApiHub, tmp_path: Path) -> None:
    device = Applicant("press-1", tmp_path)
    assert redeem(hub, device.body(token(hub, device="camera-*"))).status_code == 403
    assert redeem(hub, device.body(token(hub, device="press-11"))).status_code == 403
    assert redeem(hub, device.body(token(hub, device="press-*"))).status_code == 200


def test_a_name_that_is_taken_is_not_given_away(hub: ApiHub, tmp_path: Path) -> None:
    owner = enrolled(hub, tmp_path, "taken-1")
    thief = Applicant("taken-1", tmp_path / "thief")
    assert redeem(hub, thief.body(token(hub, device="taken-*"))).status_code == 409
    assert redeem(hub, thief.body(token(hub, device="taken-1"))).status_code == 409
    assert hub.http.post("/api/v1/enrolments", json={"device": "taken-*", "replaces": True}).status_code == 422
    replaced = redeem(hub, thief.body(token(hub, device="taken-1", replaces=True)))
    assert replaced.status_code == 200
    with owner.http(url(hub), trust(hub)) as http:
        assert http.get(f"/api/v1/blobs/{'0' * 64}").status_code == 403, "the certificate before is revoked"


def test_nothing_but_the_key_is_taken_from_a_request(hub: ApiHub, tmp_path: Path) -> None:
    device = Applicant("plain-1", tmp_path)
    answer = redeem(hub, device.body(token(hub), request=device.request("hub:default")))
    leaf = device.keep(answer.json()["certificate"])
    assert [name.value for name in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == ["plain-1"]
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [usage.dotted_string for usage in usages] == ["1.3.6.1.5.5.7.3.2"], "a client's, never a server's"


def test_requests_that_are_none(hub: ApiHub, tmp_path: Path) -> None:
    device = Applicant("csr-1", tmp_path)
    other = Applicant("csr-2", tmp_path / "other")
    lines = device.request().splitlines()
    lines[2] = lines[2][:10] + ("A" if lines[2][10] != "A" else "B") + lines[2][11:]
    text = token(hub)
    for request in ("", "x", "\n".join(lines), weak_request(), other.key.read_text(), "A" * 9000, "ü"):
        assert redeem(hub, device.body(text, request=request)).status_code == 422, request[:40]
    assert redeem(hub, device.body(text)).status_code == 200, "and none of them used the token up"


def test_a_device_may_fetch_and_renew_and_nothing_else(hub: ApiHub, tmp_path: Path) -> None:
    device = enrolled(hub, tmp_path, "modest-1")
    enrolled(hub, tmp_path, "modest-2")
    with device.http(url(hub), trust(hub)) as http:
        assert http.get(f"/api/v1/blobs/{'0' * 64}").status_code == 404
        for method, path in (
            ("GET", "devices"),
            ("GET", "enrolments"),
            ("POST", "enrolments"),
            ("GET", "certificates"),
            ("POST", "devices/modest-2/revoke"),
            ("PUT", "devices/modest-1/desired"),
            ("PUT", f"blobs/{'0' * 64}"),
            ("PUT", "channels/stable"),
        ):
            assert http.request(method, f"/api/v1/{path}", json={}).status_code == 403, path
        answer = http.post("/api/v1/devices/self/certificate", json={"request": device.request("modest-2")})
        assert answer.status_code == 200
        assert answer.json()["device"] == "modest-1"
        assert "modest-1" in str(device.keep(answer.json()["certificate"]).subject)


def test_a_device_that_renews_all_the_time_is_stopped(hub: ApiHub, tmp_path: Path) -> None:
    device = enrolled(hub, tmp_path, "greedy-1")
    with device.http(url(hub), trust(hub)) as http:
        codes = [
            http.post("/api/v1/devices/self/certificate", json={"request": device.request()}).status_code
            for _ in range(20)
        ]
    assert codes[:10] == [200] * 10
    assert codes[-1] == 409


def test_a_certificate_that_has_ended_may_be_exchanged_for_a_while_and_is_good_for_nothing_else(
    hub: ApiHub, tmp_path: Path
) -> None:
    device, before = enrolled(hub, tmp_path, "old-1"), hub.clock.now
    ends = x509.load_pem_x509_certificate(device.certificate.read_bytes()).not_valid_after_utc.timestamp()
    body = {"request": device.request()}
    try:
        with device.http(url(hub), trust(hub)) as http:
            hub.clock.now = ends + 29 * DAY_S
            assert http.get(f"/api/v1/blobs/{'0' * 64}").status_code == 403
            assert http.post("/api/v1/devices/self/certificate", json=body).status_code == 200
            hub.clock.now = ends + 31 * DAY_S
            assert http.post("/api/v1/devices/self/certificate", json=body).status_code == 403
    finally:
        hub.clock.now = before


def test_a_revoked_device_may_nothing_and_its_old_token_does_not_bring_it_back(hub: ApiHub, tmp_path: Path) -> None:
    text, device = token(hub, uses=2), Applicant("stolen-1", tmp_path)
    device.keep(redeem(hub, device.body(text)).json()["certificate"])
    with device.http(url(hub), trust(hub)) as http:
        assert http.get(f"/api/v1/blobs/{'0' * 64}").status_code == 404
        hub.post("devices/stolen-1/revoke", {"reason": "van"}, 204)
        assert http.get(f"/api/v1/blobs/{'0' * 64}").status_code == 403, "on the connection that is open as well"
        assert http.post("/api/v1/devices/self/certificate", json={"request": device.request()}).status_code == 403
    assert redeem(hub, device.body(text)).status_code == 403
    assert hub.get("certificates", device="stolen-1")[0]["reason"] == "van"
    hub.post("devices/stolen-1/revoke", {}, 204)  # twice is no mistake
    hub.post("devices/never-there/revoke", {}, 404)
    again = Applicant("stolen-1", tmp_path / "again")
    assert redeem(hub, again.body(token(hub, device="stolen-1"))).status_code == 200


def test_certificates_that_are_no_devices(hub: ApiHub, tmp_path: Path) -> None:
    stranger = FleetCA(tmp_path / "strangers").issue("modest-1")
    with pytest.raises(httpx.TransportError), _shows(hub, stranger.certificate, stranger.key) as http:
        http.get("/healthz")
    own = hub.hub.settings.data / "identity"
    with _shows(hub, own / "hub.crt", own / "hub.key") as http:  # of the same authority, and on no list of devices
        assert http.get(f"/api/v1/blobs/{'0' * 64}").status_code == 403
    with pytest.raises(httpx.TransportError), _shows(hub, own / "server.crt", own / "server.key") as http:
        http.get("/healthz")
    with hub.client() as nobody:
        assert nobody.post("/api/v1/devices/self/certificate", json={"request": "x"}).status_code == 401


def test_every_change_is_in_the_audit_log(hub: ApiHub, tmp_path: Path) -> None:
    enrolled(hub, tmp_path, "logged-1")
    hub.post("devices/logged-1/revoke", {"reason": "test"}, 204)
    with hub.client(hub.token(Role.ADMIN, "auditor")) as http:
        log = http.get("/api/v1/audit", params={"about": "logged-1"}).text
    assert "device.enrol" in log and "device.revoke" in log


def _shows(hub: ApiHub, certificate: Path, key: Path) -> httpx.Client:
    context = ssl.create_default_context(cadata=trust(hub).decode())
    context.load_cert_chain(certificate, key)
    return httpx.Client(base_url=url(hub), verify=context, timeout=30.0)


class _Impostor(http.server.BaseHTTPRequestHandler):
    """Answers with another hub's certificates, and notes what it is told."""

    heard: list[str]
    ca: bytes

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.ca)

    def do_POST(self) -> None:
        self.heard.append(self.path)
        self.send_error(500)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.mark.parametrize("plays", ["its own certificates", "the hub's certificates"])
def test_an_impostor_between_device_and_hub_learns_no_secret(hub: ApiHub, tmp_path: Path, plays: str) -> None:
    ca = FleetCA(tmp_path / "ca")
    server = ca.issue("127.0.0.1", "server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.certificate, server.key)
    heard: list[str] = []
    sent = ca.file.read_bytes() if plays == "its own certificates" else trust(hub)
    handler = type("Handler", (_Impostor,), {"heard": heard, "ca": sent})
    door = http.server.HTTPServer(("127.0.0.1", 0), handler)
    door.socket = context.wrap_socket(door.socket, server_side=True)
    thread = threading.Thread(target=door.serve_forever, daemon=True)
    thread.start()
    wanted = EnrolmentToken.parse(token(hub))
    data = tmp_path / "data"
    try:
        with pytest.raises(Exception, match=r"is not the hub that made the token|cannot be reached") as caught:
            enrol(data, "dev-1", f"https://127.0.0.1:{door.server_address[1]}", wanted)
        assert wanted.secret not in str(caught.value)
    finally:
        door.shutdown()
        door.server_close()
    assert heard == [], "the secret is sent to nobody but the hub"
    assert load(data) is None
    key = (data / NEW / "device.key").read_bytes()
    found = enrol(data, "dev-1" if plays == "its own certificates" else "dev-2", url(hub), wanted)
    assert found.key.read_bytes() == key, "the key is kept for the next try"


def test_a_root_that_the_token_does_not_name_is_refused(hub: ApiHub, tmp_path: Path) -> None:
    made = EnrolmentToken.parse(token(hub, device="rooted-1"))
    pins = EnrolmentToken(made.id, made.secret, made.ca, "0" * 64)
    with pytest.raises(IdentityError, match="root metadata"):
        enrol(tmp_path, "rooted-1", url(hub), pins)
    with pytest.raises(IdentityError, match="root metadata"):
        enrol(tmp_path, "rooted-1", url(hub), pins, root=b"{}")
    assert load(tmp_path) is None
    assert enrol(tmp_path, "rooted-1", url(hub), made, root=b"brought along").root == b"brought along"
