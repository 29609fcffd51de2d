"""The whole API, as its own description has it, asked for whatever Schemathesis thinks of: with every right, with one
role and with none. Nothing fails inside, nothing is answered that is not described, nobody gets what is not theirs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from cloud_hub.access import rights
from cloud_hub.access.principals import Role
from edgeloop.trust.names import ROOT, TARGETS
from tests.doubles.packages import make_package
from tests.doubles.people import People
from tests.unit.hub.api_kit import ApiHub

SOAK = bool(os.environ.get("EDGELOOP_SOAK"))
#: Requests for each address, of each kind; `make soak` asks for more, and for others each time.
EXAMPLES = 200 if SOAK else 3
#: What answers with a failure of somebody else's is described as such.
DESCRIBED = (502, 503, 507)


schemathesis.serializer.alias("application/cbor", "application/octet-stream")


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiHub]:
    """A hub with a release on a channel, so that not everything is absent."""
    folder = tmp_path_factory.mktemp("fuzzed")
    hub = ApiHub(folder / "data", insecure=False, request_rate=0)
    # Guesses are counted elsewhere: here one address makes thousands of them.
    hub.hub.access.lockout.wait_s = lambda *_: 0.0  # type: ignore[method-assign]
    package = make_package(folder / "package")
    people = People(hub.get("trust"), hub.clock.now, package.name)
    for role in (ROOT, TARGETS):
        hub.put(f"trust/metadata/{role}", people.file(role))
    signed_by, signed = people.release(package)
    hub.put(f"trust/metadata/{signed_by}", signed)
    hub.post("channels/stable/releases", {"digest": hub.publish(package)})
    yield hub
    hub.close()


@pytest.fixture(scope="module")
def schema(api: ApiHub) -> Any:
    return schemathesis.openapi.from_dict(api.http.get("/openapi.json").json())


def ask(api: ApiHub, schema: Any, token: str, mode: GenerationMode, judge: Any, examples: int = EXAMPLES) -> int:
    """Ask every address of the description; returns how many there are."""
    base, http, asked = str(api.http.base_url), requests.Session(), 0
    headers = {"Authorization": f"Bearer {token}"} if token else None
    trust = str(api.hub.settings.data / "identity" / "ca.crt")
    for found in schema.get_all_operations():
        operation = found.ok()
        asked += 1

        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            derandomize=not SOAK,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def one(case: Any) -> None:
            judge(case, case.call(base_url=base, session=http, headers=headers, timeout=30, verify=trust))

        with contextlib.suppress(Unsatisfiable):  # an address without parameters has no wrong ones
            one()
    return asked


def right_of(case: Any) -> rights.Right:
    return rights.TABLE[case.method.upper(), case.path]


def sound(case: Any, answer: Any) -> None:
    """No failure inside, and nothing that is not described."""
    if answer.status_code == 400 and answer.text == "Invalid HTTP request received.":
        return  # a line of 64 KiB and more: the server's parser refuses it before there is an address
    if answer.status_code not in DESCRIBED:
        case.validate_response(answer, checks=[not_a_server_error])
    case.validate_response(answer, checks=[status_code_conformance, response_schema_conformance])


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["valid", "invalid"])
def test_an_administrator_asks_for_everything(api: ApiHub, schema: Any, mode: GenerationMode) -> None:
    def judge(case: Any, answer: Any) -> None:
        # What it thinks of as invalid can be the credentials.
        if mode is GenerationMode.POSITIVE and Role.ADMIN in right_of(case).roles:
            assert answer.status_code != 401, case.path
        sound(case, answer)

    token = api.token(Role.ADMIN)
    assert ask(api, schema, token, mode, judge) > 50
    assert api.get("me")["roles"] == ["admin"], "the hub is well"


@pytest.mark.parametrize("who", ["nobody", "viewer"])
def test_who_has_no_right_gets_nothing_whatever_they_send(api: ApiHub, schema: Any, who: str) -> None:
    def judge(case: Any, answer: Any) -> None:
        right = right_of(case)
        if not right.anyone and (who == "nobody" or Role.VIEWER not in right.roles):
            assert answer.status_code == (401 if who == "nobody" else 403), (case.method, case.path, answer.text)
        sound(case, answer)

    token = "" if who == "nobody" else api.token(Role.VIEWER)
    ask(api, schema, token, GenerationMode.POSITIVE, judge, examples=max(1, EXAMPLES // 4))
