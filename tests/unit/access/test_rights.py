"""Every address of the hub has a row in the table of rights, and every role gets what its row says, and no more."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_hub.access import rights
from cloud_hub.access.principals import Role
from cloud_hub.api.app import create_api
from tests.unit.hub.api_kit import ApiHub

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "cloud-hub.md").read_text()


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiHub]:
    hub = ApiHub(tmp_path_factory.mktemp("hub") / "data", insecure=False, request_rate=0)
    yield hub
    hub.close()


def addresses(routes: Any) -> Iterator[tuple[str, str]]:
    """Method and path of everything that an application answers, hidden or not."""
    for route in routes:
        if hasattr(route, "effective_candidates"):
            yield from addresses(route.effective_candidates())
        else:
            path = getattr(route, "path", None) or route.path_format
            yield from ((method, path) for method in route.methods)


def test_every_address_has_a_row_and_every_row_an_address(api: ApiHub) -> None:
    served = set(addresses(create_api(api.hub).routes))
    assert len(served) > 50
    assert served - set(rights.TABLE) == set(), "these have no row in cloud_hub/access/rights.py: nobody may use them"
    assert set(rights.TABLE) - served == set(), "these rows have no address"


def test_the_guard_finds_the_row_of_the_address_that_answers() -> None:
    for method, path in rights.TABLE:
        found = rights.find(method, path.replace("{", "").replace("}", ""))
        assert found is not None and found.path == path and found.right is rights.TABLE[method, path]
    assert rights.find("GET", "/api/v1/retraining/trigger") != rights.find("GET", "/api/v1/retraining/7")
    assert rights.find("GET", "/api/v1/nowhere") is None
    assert rights.find("GET", "/api/v1/blobs/a/b") is None


@pytest.mark.parametrize("who", ["anonymous", *Role])
def test_every_role_at_every_address(api: ApiHub, who: str) -> None:
    token = "" if who == "anonymous" else api.token(Role(who))
    with api.client(token) as http:
        for (method, path), right in rights.TABLE.items():
            # Numbers where the path has numbers: things that are not there, since this asks for everything.
            url = re.sub(r"\{(alarm|run|webhook)\}", "999999", re.sub(r"\{(?!alarm|run|webhook)\w+\}", "absent", path))
            status = http.request(method, url, json={}).status_code
            if right.anyone or (who != "anonymous" and Role(who) in right.roles):
                assert status not in (401, 403, 405, 500), (method, path, status)
            else:
                assert status == (401 if who == "anonymous" else 403), (method, path, status)


def test_an_address_without_a_row_is_nobodys(api: ApiHub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert api.http.get("/api/v1/devices").status_code == 200
    rights._patterns.cache_clear()
    monkeypatch.delitem(rights.TABLE, ("GET", "/api/v1/devices"))
    try:
        assert api.http.get("/api/v1/devices").status_code == 403
        with api.client() as nobody:
            assert nobody.get("/api/v1/devices").status_code == 403
    finally:
        monkeypatch.undo()
        rights._patterns.cache_clear()


def test_a_method_that_an_address_lacks(api: ApiHub) -> None:
    answer = api.http.delete("/api/v1/devices")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")


def test_the_page_has_the_table() -> None:
    section = PAGE.split("\n## Rights\n", 1)[1].split("\n## ", 1)[0]
    listed = dict(re.findall(r"^\| `(\w+ \S+)` \| ([^|]+?) \|", section, re.M))
    shown = {f"{method} {path.removeprefix(rights.API)}": right.sentence for (method, path), right in table()}
    assert listed == shown


def table() -> Iterator[tuple[tuple[str, str], rights.Right]]:
    """What people ask for: not the pages of the documentation, nor what is only an old name."""
    for (method, path), right in rights.TABLE.items():
        if method != "HEAD" and not path.startswith(("/docs", "/redoc", "/openapi", "/api/v1/drift/alarms")):
            yield (method, path), right
