"""Who has no right, or guesses one: refused, slowed down, told nothing; and a real hub keeps its secrets to itself."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from sqlalchemy import text
from typer.testing import CliRunner, Result

from cloud_hub import cli, exit_codes
from cloud_hub.access import audit
from cloud_hub.access.patience import GUESSES, Lockout
from cloud_hub.access.principals import Role
from cloud_hub.records import Database
from tests.doubles.identity_provider import CLIENT_SECRET, IdentityProvider
from tests.integration.secure_fleet import SecureHub, needs_mosquitto
from tests.unit.hub.api_kit import ApiHub

ME = "/api/v1/me"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiHub]:
    hub = ApiHub(tmp_path_factory.mktemp("hub") / "data", insecure=False, request_rate=0)
    yield hub
    hub.close()


@pytest.fixture
def api(shared: ApiHub) -> ApiHub:
    """A hub at which nobody has guessed yet."""
    shared.hub.access.lockout = Lockout()
    return shared


def test_guessing_is_locked_out_and_the_guesser_alone(api: ApiHub) -> None:
    assert api.http.get(ME).status_code == 200
    with api.client() as http:
        for _ in range(GUESSES):
            answer = http.get(ME, headers={"authorization": f"Bearer el_{'0' * 12}_{'1' * 64}"})
            assert answer.status_code == 401 and answer.headers["www-authenticate"].startswith("Bearer")
        locked = http.get(ME, headers={"authorization": f"Bearer {api.token(Role.ADMIN, 'never shown before')}"})
        assert locked.status_code == 429 and int(locked.headers["retry-after"]) > 0
        assert http.get("/healthz").status_code == 200
    assert api.http.post("/api/v1/tokens", json={"name": "x", "role": "viewer"}).status_code == 201
    assert api.http.get(ME).status_code == 200, "whoever was known before"


def test_guesses_in_a_body_count_like_any_other(api: ApiHub) -> None:
    ident, secret, *pins = api.post("enrolments", {"device": "camera-1"}, 201)["token"].split(".")
    wrong = ".".join([ident, ("A" if secret[0] != "A" else "B") + secret[1:], *pins])
    body = {"token": wrong, "device": "camera-1", "request": certificate_request()}
    with api.client() as http:
        seen = [http.post("/api/v1/enrolments/redeem", json=body).status_code for _ in range(GUESSES + 1)]
    assert seen == [401] * GUESSES + [429]


def certificate_request() -> str:
    """A good one, for a key that nobody keeps."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "camera-1")])
    made = x509.CertificateSigningRequestBuilder().subject_name(name)
    return made.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def test_a_known_caller_has_a_rate_of_its_own(tmp_path: Path) -> None:
    api = ApiHub(tmp_path / "data", insecure=False, request_rate=0.2)
    try:
        with (
            api.client(api.token(Role.VIEWER, "greedy")) as greedy,
            api.client(api.token(Role.VIEWER, "other")) as other,
        ):
            answers = [greedy.get(ME) for _ in range(6)]
            limited = [answer for answer in answers if answer.status_code == 429]
            assert limited and limited[0].headers["retry-after"], "six are more than ten seconds' worth"
            assert other.get(ME).status_code == 200
    finally:
        api.close()


@pytest.mark.parametrize("scheme", ["Basic", "bearer ", "Token", "Bearer\t", "Bearer Bearer"])
def test_other_schemes(api: ApiHub, scheme: str) -> None:
    with api.client() as http:
        assert http.get(ME, headers={"authorization": f"{scheme} {'a' * 20}"}).status_code == 401


def test_a_refused_body_is_not_kept(api: ApiHub) -> None:
    def much() -> Iterator[bytes]:
        for _ in range(64):
            yield bytes(1 << 16)

    with api.client() as http:
        try:
            answer = http.put(f"/api/v1/blobs/{'0' * 64}", content=much())
            assert answer.status_code == 401
        except httpx.TransportError:
            pass  # it was cut off while it was sending
        assert http.get("/healthz").status_code == 200
    assert not list((api.hub.settings.data / "blobs").rglob("0" * 64))


HIDDEN = (
    "/api/v1/devices/",
    "//api/v1/devices",
    "/api/v1/./devices",
    "/API/v1/devices",
    "/api/v1/devices%2f",
    "/api/v1/devices%00",
    "/api/v1/devices;x=1",
    "/healthz/../api/v1/devices",
    "/api/v1/tokens/../devices",
    "/metrics/",
)


def test_what_a_path_hides(api: ApiHub) -> None:
    """An address is what the table has, letter by letter."""
    with api.client() as http:
        for path in HIDDEN:
            answer = http.get(httpx.URL(f"{http.base_url}".rstrip("/") + path))
            assert answer.status_code in (401, 403), (path, answer.status_code)


def test_every_answer_has_the_headers(api: ApiHub) -> None:
    with api.client() as nobody:
        for answer in (api.http.get(ME), nobody.get("/api/v1/devices"), nobody.get("/docs"), nobody.get("/nowhere")):
            headers = answer.headers
            assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"
            assert "frame-ancestors 'none'" in headers["content-security-policy"]
            assert headers["cache-control"] == "no-store" and "max-age" in headers["strict-transport-security"]
            assert "server" not in headers and "access-control-allow-origin" not in headers


def test_an_insecure_hub_asks_nobody_and_still_writes_down_what_was_done(tmp_path: Path) -> None:
    api = ApiHub(tmp_path / "data")
    try:
        assert api.get("me")["kind"] == "development"
        api.put("channels/stable", {"policy": {}})
        with api.hub.db.read() as connection:
            assert [(e.who, e.what, e.about) for e in audit.entries(connection)] == [
                ("development:development", "channel.create", "stable"),
                ("development:development", "channel.policy", "stable"),
            ]
            assert audit.verify(connection).problem == ""
    finally:
        api.close()


def test_every_change_is_written_down_with_who_made_it(api: ApiHub) -> None:
    with api.client(api.token(Role.ADMIN, "ada")) as http:
        http.base_url = http.base_url.join("/api/v1/")
        http.put("channels/stable", json={"policy": {"rollout": {"bake_s": 5.0}}})
        http.put("devices/camera-1/desired", json={"channel": "stable"})
        hook = http.post("webhooks", json={"url": "https://receiver.example/hook"}).json()
        http.delete(f"webhooks/{hook['id']}")
        token = http.post("tokens", json={"name": "ci", "role": "viewer"}).json()
        http.delete(f"tokens/{token['id']}")
        http.post("enrolments", json={"device": "camera-2"})
        found = http.get("audit", params={"limit": 1000}).json()
    mine = {entry["what"]: entry for entry in found if entry["who"] == "token:ada"}
    assert set(mine) == {
        "channel.create", "channel.policy", "device.desired", "webhook.add", "webhook.remove", "token.create",
        "token.revoke", "enrolment.create",
    }  # fmt: skip
    policy = mine["channel.policy"]
    assert (policy["before"]["rollout"]["bake_s"], policy["after"]["rollout"]["bake_s"]) == (60.0, 5.0)
    assert hook["secret"] not in json.dumps(found) and token["token"].rpartition("_")[2] not in json.dumps(found)


@needs_mosquitto
def test_a_real_hub_keeps_its_secrets_out_of_its_log(tmp_path: Path) -> None:
    issuer = IdentityProvider(kind="ES256")
    hub = SecureHub(tmp_path / "hub", log_level="debug", oidc_issuer=issuer.issuer)
    hub.environment["CLOUD_HUB_OIDC_CLIENT_SECRET"] = CLIENT_SECRET
    try:
        hub.start()
        secrets = secrets_of(hub, issuer)
        assert hub.stop() == 0
        assert hub.process is not None and hub.process.stdout is not None
        shown = hub.process.stdout.read()
        first = re.findall(r"el_[0-9a-f]{12}_[0-9a-f]{64}", shown)
        assert len(first) == 1, "the administrator's token, once"
        told = hub.log + shown.replace(first[0], "")
        assert "cloud_hub" in told and len(secrets) > 8
        for name, secret in {**secrets, "the first token": first[0]}.items():
            assert secret not in told, name
    finally:
        issuer.close()
        hub.close()


def secrets_of(hub: SecureHub, issuer: IdentityProvider) -> dict[str, str]:
    """Have a hub handle every kind of secret, well and badly; what they are."""
    local = json.loads((hub.data / "local.json").read_text())
    assert stat.S_IMODE((hub.data / "local.json").stat().st_mode) == 0o600
    made = hub.command("tokens", "create", "--name", "ci", "--role", "publisher", "--model", "digits")
    assert made.returncode == 0, made.stderr
    token = made.stdout.strip()
    hook = hub.api.post("/api/v1/webhooks", json={"url": "https://receiver.example/hook"}).json()
    enrolment = hub.token(device="camera-1")
    jwt, wrong, cookie = issuer.token(), f"el_{'0' * 12}_{'f' * 64}", "c" * 43
    for credential in (token, jwt, wrong, token + "x"):
        hub.api.get(ME, headers={"authorization": f"Bearer {credential}"})
    hub.api.get("/api/v1/devices", headers={"authorization": "", "cookie": f"__Host-edgeloop-session={cookie}"})
    hub.api.post("/api/v1/enrolments/redeem", json={"token": enrolment, "device": "camera-1", "request": "no request"})
    hub.api.post("/api/v1/webhooks", json={"url": "https://receiver.example", "secret": "whsec_short"})
    hub.api.post("/api/v1/webhooks", json={"url": 7, "secret": "whsec_" + "B" * 32})
    begun = hub.api.get("/api/v1/sign-in")
    assert begun.status_code == 302
    there = httpx.get(begun.headers["location"])
    hub.api.get("/api/v1/sign-in/callback", params=dict(httpx.URL(there.headers["location"]).params))
    session = hub.api.cookies.get("__Host-edgeloop-session")
    assert session
    ident = token.split("_")[1]
    assert hub.command("tokens", "revoke", ident).returncode == 0
    assert hub.api.get(ME, headers={"authorization": f"Bearer {token}"}).status_code in (401, 429)
    keys = {path.name: path.read_text().split("\n")[1] for path in hub.data.rglob("*.key")}
    return {
        "the local secret": local["token"],
        "a token": token.rpartition("_")[2],
        "a webhook's secret": hook["secret"],
        "an enrolment's": enrolment.split(".")[1],
        "a JWT": jwt.rpartition(".")[2],
        "a wrong token": wrong,
        "a cookie": cookie,
        "a session": session,
        "what a webhook was refused with": "whsec_" + "B" * 32,
        "the client's secret at the identity provider": CLIENT_SECRET,
        **keys,
    }


def test_a_log_that_was_touched_is_found_by_the_command(tmp_path: Path) -> None:
    api = ApiHub(tmp_path / "data")
    try:
        api.put("channels/stable", {"policy": {}})
        head = api.get("audit/head")
    finally:
        api.close()

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(cli.app, [*arguments, "--data", str(tmp_path / "data")])

    anchor = f"{head['number']}:{head['hash']}"
    good = run("audit", "verify", "--anchor", anchor)
    assert good.exit_code == 0 and anchor in good.stdout, good.output
    exported = [json.loads(line) for line in run("audit", "export").stdout.splitlines()]
    assert [entry["number"] for entry in exported] == list(range(1, head["number"] + 1))
    assert "channel.policy" in run("audit", "show", "--about", "stable").stdout
    assert run("audit", "verify", "--anchor", "nonsense").exit_code == exit_codes.REFUSED
    tamper(tmp_path / "data")
    found = run("audit", "verify")
    assert found.exit_code == exit_codes.AUDIT_BROKEN and "was changed" in found.output
    refused = run("tokens", "list")
    assert refused.exit_code == exit_codes.REFUSED and "cloud-hub serve" in refused.output, "no hub runs on it"


def tamper(data: Path) -> None:
    """As whoever owns the file can."""
    db = Database.in_folder(data)
    with db.begin() as connection:
        connection.execute(text("DROP TRIGGER audit_log_no_UPDATE"))
        connection.execute(text("UPDATE audit_log SET who = 'hub:hub' WHERE what = 'channel.policy'"))
    db.close()
