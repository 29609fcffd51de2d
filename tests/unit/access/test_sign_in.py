"""People come in by an identity provider: tokens that it signed, and a browser that it sends back."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from joserfc.jwk import ECKey

from cloud_hub.access.errors import NotBelieved, ProviderError
from cloud_hub.access.grants import parse_grant
from cloud_hub.access.oidc import KEYS_AGAIN_S, Client, Provider
from cloud_hub.access.principals import Role
from tests.doubles.identity_provider import CLIENT_ID, CLIENT_SECRET, IdentityProvider
from tests.unit.hub.api_kit import ApiHub
from tests.unit.hub.kit import Clock


@pytest.fixture(scope="module", params=["RS256", "ES256"])
def issuer(request: pytest.FixtureRequest) -> Iterator[IdentityProvider]:
    made = IdentityProvider(kind=request.param)
    yield made
    made.close()


def provider(issuer: IdentityProvider, **changes: Any) -> Provider:
    own = {"client_secret": CLIENT_SECRET, "audience": CLIENT_ID, "claim": "roles", "grants": {}, **changes}
    return Provider(Client(issuer.issuer, CLIENT_ID, **own))


def test_a_token_of_the_issuer_is_somebody(issuer: IdentityProvider) -> None:
    who = provider(issuer).known(issuer.token())
    assert (str(who), who.display, who.roles) == ("person:ada-1", "ada", {Role.OPERATOR})


def part(content: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


def unsigned(issuer: IdentityProvider) -> str:
    return f"{part({'alg': 'none'})}.{issuer.token().split('.')[1]}."


def signed_with_the_public_key(issuer: IdentityProvider) -> str:
    signed = f"{part({'alg': 'HS256', 'kid': issuer.key.kid})}.{issuer.token().split('.')[1]}"
    mac = hmac.digest(issuer.key.as_pem(private=False), signed.encode(), "sha256")
    return f"{signed}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"


#: The attacker's.
MINE = ECKey.generate_key("P-256", {"kid": "mine"})


def with_a_key_of_its_own(issuer: IdentityProvider) -> str:
    brought = {"jwk": MINE.as_dict(private=False), "jku": "http://127.0.0.1:9/keys"}
    return issuer.token({"alg": "ES256", **brought}, MINE)


def with_other_claims(issuer: IdentityProvider) -> str:
    head, _, signature = issuer.token().split(".")
    claims = {"iss": issuer.issuer, "aud": CLIENT_ID, "exp": time.time() + 99, "sub": "ada-1", "roles": ["admin"]}
    return f"{head}.{part(claims)}.{signature}"


FORGED: dict[str, Callable[[IdentityProvider], str]] = {
    "no signature": unsigned,
    "the public key as a shared secret": signed_with_the_public_key,
    "a key that it brings along": with_a_key_of_its_own,
    "other claims below the signature": with_other_claims,
    "another issuer": lambda issuer: issuer.token(iss="https://other.example"),
    "another audience": lambda issuer: issuer.token(aud="another-program"),
    "no audience": lambda issuer: issuer.token(aud=None),
    "over": lambda issuer: issuer.token(exp=int(time.time()) - 120),
    "no end": lambda issuer: issuer.token(exp=None),
    "not yet": lambda issuer: issuer.token(nbf=int(time.time()) + 600),
    "no role": lambda issuer: issuer.token(roles=["somebody"]),
    "no subject": lambda issuer: issuer.token(sub=None),
    "a subject of two lines": lambda issuer: issuer.token(sub="ada\nadmin"),
    "not three parts": lambda issuer: "a.b",
    "nothing": lambda issuer: "..",
    "endless": lambda issuer: issuer.token(sub="a" * 20_000),
}


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
def test_what_the_issuer_did_not_say_is_not_believed(
    issuer: IdentityProvider, forge: Callable[[IdentityProvider], str]
) -> None:
    with pytest.raises(NotBelieved):
        provider(issuer).known(forge(issuer))


def test_keys_are_read_again_when_the_issuer_rotates_them_and_not_for_every_stranger(issuer: IdentityProvider) -> None:
    clock, own = Clock(time.time()), provider(issuer)
    own._clock = clock
    own.known(issuer.token())
    issuer.rotate()
    new = issuer.token()
    with pytest.raises(NotBelieved):
        own.known(new)
    clock.now += KEYS_AGAIN_S
    assert own.known(new).name == "ada-1"
    before = issuer.asked.count("/keys")
    for _ in range(20):
        with pytest.raises(NotBelieved):
            own.known(with_a_key_of_its_own(issuer))
    assert issuer.asked.count("/keys") == before


def test_an_issuer_that_is_down_is_not_the_callers_fault(issuer: IdentityProvider) -> None:
    own = provider(issuer)
    issuer.down = True
    try:
        with pytest.raises(ProviderError):
            own.known(issuer.token())
    finally:
        issuer.down = False


def test_groups_stand_for_roles_and_a_role_keeps_to_its_own_limits(issuer: IdentityProvider) -> None:
    grants = {"ml": "publisher models=digits", "all": "viewer", "ops": "operator", "lab": "admin channels=lab"}
    own = provider(issuer, claim="realm.groups", grants={name: parse_grant(text) for name, text in grants.items()})

    def who(*groups: str) -> Any:
        return own.known(issuer.token(realm={"groups": list(groups)}))

    assert who("all", "ops").roles == {Role.VIEWER, Role.OPERATOR}
    ml = who("all", "ml")
    assert (ml.roles, ml.models, ml.channels) == ({Role.PUBLISHER}, {"digits"}, None)
    assert who("lab", "all").channels == {"lab"}, "not an administrator of everything"
    with pytest.raises(NotBelieved):
        who("admin")


@pytest.mark.parametrize("text", ["boss", "viewer models", "viewer colour=red", "viewer models=a,,b", ""])
def test_grants_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no|unpack"):
        parse_grant(text)


# ── with a browser ────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ApiHub, IdentityProvider]]:
    own = IdentityProvider(kind="ES256")
    folder = tmp_path_factory.mktemp("hub") / "data"
    hub = ApiHub(folder, insecure=False, request_rate=0, oidc_issuer=own.issuer, oidc_client_secret=CLIENT_SECRET)
    yield hub, own
    hub.close()
    own.close()


@pytest.fixture
def api(shared: tuple[ApiHub, IdentityProvider]) -> ApiHub:
    hub, _ = shared
    hub.clock.now = time.time()
    return hub


def came_back(api: ApiHub, browser: httpx.Client) -> httpx.Response:
    """Follow the browser to the identity provider; the address that it is sent back to, on the hub that runs."""
    begun = browser.get("/api/v1/sign-in")
    assert begun.status_code == 302, begun.text
    there = httpx.get(begun.headers["location"])
    back = urlsplit(there.headers["location"])
    return httpx.Response(302, headers={"location": f"{back.path}?{back.query}"})


def test_a_person_signs_in_and_out(api: ApiHub) -> None:
    with api.client() as browser:
        home = browser.get(came_back(api, browser).headers["location"])
        assert home.status_code == 302, home.text
        cookies = " ".join(home.headers.get_list("set-cookie")).lower()
        assert "httponly" in cookies and "samesite=lax" in cookies
        me = browser.get("/api/v1/me").json()
        assert (me["kind"], me["name"], me["display"], me["roles"]) == ("person", "ada-1", "ada", ["operator"])
        assert browser.get("/api/v1/tokens").status_code == 403
        own = {"origin": str(browser.base_url).rstrip("/")}
        desired = "/api/v1/devices/camera-1/desired"
        assert browser.put(desired, json={}, headers=own).status_code == 200
        assert browser.put(desired, json={}).status_code == 403, "nothing says that our own page asked"
        for foreign in ({"origin": "https://evil.example"}, {**own, "sec-fetch-site": "cross-site"}):
            assert browser.put(desired, json={}, headers=foreign).status_code == 403
        stolen = dict(browser.cookies)
        assert browser.post("/api/v1/sign-out", headers=own).status_code == 204
        assert browser.get("/api/v1/me").json()["kind"] == "anonymous"
    with api.client() as thief:
        assert thief.get("/api/v1/devices", cookies=stolen).status_code == 401
    with api.hub.db.read() as connection:
        from cloud_hub.access import audit

        whats = [(entry.who, entry.what) for entry in audit.entries(connection)]
    assert ("person:ada-1", "session.begin") in whats and ("person:ada-1", "device.desired") in whats


def test_a_session_ends_by_itself(api: ApiHub) -> None:
    with api.client() as browser:
        browser.get(came_back(api, browser).headers["location"])
        assert browser.get("/api/v1/devices").status_code == 200
        api.clock.now += api.hub.settings.session_s + 1
        assert browser.get("/api/v1/devices").status_code == 401


def test_nobody_is_signed_in_by_a_link_that_somebody_else_began(api: ApiHub) -> None:
    with api.client() as mallory, api.client() as victim:
        link = came_back(api, mallory).headers["location"]
        assert victim.get(link).status_code == 401, "this browser began nothing"
        assert victim.get("/api/v1/sign-in").status_code == 302
        assert victim.get(link).status_code == 401, "this browser began another sign-in"
        assert "edgeloop-session" not in victim.cookies


def test_a_code_is_good_once_and_for_the_browser_that_began(api: ApiHub) -> None:
    with api.client() as browser:
        link = came_back(api, browser).headers["location"]
        kept = dict(browser.cookies)
        assert browser.get(link).status_code == 302
        again = browser.get(link, cookies=kept)
        assert again.status_code in (401, 502), "the code is used up"
        query = {name: values[0] for name, values in parse_qs(urlsplit(link).query).items()}
        for wrong in ({**query, "code": "guessed"}, {**query, "state": "guessed"}, {}):
            assert browser.get("/api/v1/sign-in/callback", params=wrong, cookies=kept).status_code in (401, 502)


def test_a_programs_token_of_the_issuer(api: ApiHub, shared: tuple[ApiHub, IdentityProvider]) -> None:
    _, issuer = shared
    with api.client(issuer.token(roles=["viewer"])) as http:
        assert http.get("/api/v1/devices").status_code == 200
        assert http.put("/api/v1/channels/stable", json={"policy": {}}).status_code == 403
    with api.client(with_other_claims(issuer)) as http:
        assert http.get("/api/v1/devices").status_code == 401


def test_a_hub_without_an_identity_provider(tmp_path: Path) -> None:
    hub = ApiHub(tmp_path / "data", insecure=False)
    try:
        assert "oidc_issuer" in hub.get("sign-in", 404)["hint"]
        with hub.client("a.b.c") as http:
            assert http.get("/api/v1/devices").status_code == 401
    finally:
        hub.close()
