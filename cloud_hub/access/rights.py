"""Which role may use which address: one table, from which the guard works.

An address that is not in it is refused to everybody, so a new one has to be put here before anybody can use it; a test
compares the table with the addresses that the application has, and with ``docs/reference/cloud-hub.md``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from starlette.routing import compile_path

from cloud_hub.access.principals import Principal, Role

API = "/api/v1"


class About(StrEnum):
    """What an address is about: what is compared with the channels and models that a principal is limited to."""

    NOTHING = "nothing"
    """Neither channels nor models: limits do not matter."""
    FLEET = "the fleet"
    """The whole fleet: nothing for whoever is limited."""
    NAMED = "what is named"
    """What path, query and body name: a channel, a release, a device, a rollout, an alarm, a run, a role that signs."""
    ASKED = "?channel="
    """The same, and whoever is limited to channels has to name one in the query: else the answer is about all."""
    OWN = "own"
    """A list that holds what is the caller's own, or a release that is checked once it is read."""


@dataclass(frozen=True)
class Right:
    """Who may use an address.

    Attributes:
        roles: any of these is enough.
        device: whether a device with a certificate may, too.
        anyone: whether everybody may, known or not.
        about: what limits are compared with.
    """

    roles: frozenset[Role]
    device: bool = False
    anyone: bool = False
    about: About = About.NOTHING

    def allows(self, principal: Principal) -> bool:
        """Whether a principal's roles are enough; its limits are another question."""
        return self.anyone or (self.device and principal.kind == "device") or bool(self.roles & principal.roles)

    @property
    def sentence(self) -> str:
        """Who may, in words."""
        if self.anyone:
            return "anyone"
        named = [role.value for role in Role if role in self.roles]
        return ", ".join([*named, "device"] if self.device else named)


def _right(*roles: Role, about: About = About.NOTHING, device: bool = False) -> Right:
    """The administrator may everything."""
    return Right(frozenset({*roles, Role.ADMIN}), device=device, about=about)


def _read(about: About, *, device: bool = False) -> Right:
    """Every role may look."""
    return _right(*Role, about=about, device=device)


_ANYONE = Right(frozenset(), anyone=True)
_ADMIN = _right(about=About.FLEET)
_OPERATOR, _PUBLISHER, _APPROVER = Role.OPERATOR, Role.PUBLISHER, Role.APPROVER

#: Method and path → who may. Paths are those of the application, parameters in braces.
TABLE: dict[tuple[str, str], Right] = {
    # What tells nothing of the fleet.
    ("GET", "/healthz"): _ANYONE,
    ("GET", "/readyz"): _ANYONE,
    ("GET", "/docs"): _ANYONE,
    ("GET", "/docs/oauth2-redirect"): _ANYONE,
    ("GET", "/redoc"): _ANYONE,
    ("GET", "/openapi.json"): _ANYONE,
    ("HEAD", "/docs"): _ANYONE,
    ("HEAD", "/docs/oauth2-redirect"): _ANYONE,
    ("HEAD", "/redoc"): _ANYONE,
    ("HEAD", "/openapi.json"): _ANYONE,
    ("GET", "/metrics"): _read(About.FLEET),
    # People and programs.
    ("GET", f"{API}/me"): _ANYONE,
    ("GET", f"{API}/sign-in"): _ANYONE,
    ("GET", f"{API}/sign-in/callback"): _ANYONE,
    ("POST", f"{API}/sign-out"): _ANYONE,
    ("GET", f"{API}/tokens"): _ADMIN,
    ("POST", f"{API}/tokens"): _ADMIN,
    ("DELETE", f"{API}/tokens/{{token}}"): _ADMIN,
    ("GET", f"{API}/audit"): _ADMIN,
    ("GET", f"{API}/audit/head"): _ADMIN,
    # Devices and who they are. A one-time token, in the body, is what redeems an enrolment.
    ("GET", f"{API}/enrolments"): _ADMIN,
    ("POST", f"{API}/enrolments"): _ADMIN,
    ("DELETE", f"{API}/enrolments/{{enrolment}}"): _ADMIN,
    ("GET", f"{API}/enrolments/ca"): _ANYONE,
    ("POST", f"{API}/enrolments/redeem"): _ANYONE,
    ("POST", f"{API}/devices/self/certificate"): Right(frozenset(), device=True),
    ("GET", f"{API}/certificates"): _read(About.FLEET),
    ("POST", f"{API}/devices/{{device}}/revoke"): _ADMIN,
    ("GET", f"{API}/devices"): _read(About.ASKED),
    ("GET", f"{API}/devices/{{device}}"): _read(About.NAMED),
    ("PUT", f"{API}/devices/{{device}}/desired"): _right(_OPERATOR, about=About.NAMED),
    # What devices measure of models that are no release yet; their owners allow it or not.
    ("GET", f"{API}/trials"): _read(About.OWN),
    ("POST", f"{API}/trials"): _right(_PUBLISHER, about=About.NAMED),
    ("GET", f"{API}/trials/{{trial}}"): _read(About.NAMED),
    ("POST", f"{API}/trials/{{trial}}/cancel"): _right(_OPERATOR, _PUBLISHER, about=About.NAMED),
    # Signed metadata, which everybody may check.
    ("GET", "/tuf/{file}"): _ANYONE,
    ("GET", f"{API}/trust"): _read(About.NOTHING),
    ("GET", f"{API}/trust/metadata/{{role}}"): _read(About.NOTHING),
    ("PUT", f"{API}/trust/metadata/root"): _ADMIN,
    ("PUT", f"{API}/trust/metadata/targets"): _ADMIN,
    ("PUT", f"{API}/trust/metadata/{{role}}"): _right(_PUBLISHER, about=About.NAMED),
    # Releases and their files; a file is named by its hash, which only whoever may read the index knows.
    ("GET", f"{API}/releases"): _read(About.OWN),
    ("POST", f"{API}/releases"): _right(_PUBLISHER, about=About.OWN),
    ("POST", f"{API}/releases/missing"): _right(_PUBLISHER),
    ("GET", f"{API}/releases/{{digest}}"): _read(About.NAMED),
    ("GET", f"{API}/releases/{{digest}}/index"): _read(About.NAMED, device=True),
    ("GET", f"{API}/releases/{{digest}}/lineage"): _read(About.NAMED),
    ("GET", f"{API}/releases/{{digest}}/attestations/{{kind}}"): _read(About.NAMED),
    ("PUT", f"{API}/releases/{{digest}}/attestations/{{kind}}"): _right(_PUBLISHER, about=About.NAMED),
    ("GET", f"{API}/blobs/{{sha256}}"): _read(About.NOTHING, device=True),
    ("HEAD", f"{API}/blobs/{{sha256}}"): _read(About.NOTHING, device=True),
    ("PUT", f"{API}/blobs/{{sha256}}"): _right(_PUBLISHER),
    # Channels and rollouts. Going back is always safe, so whoever may do anything may do that.
    ("GET", f"{API}/channels"): _read(About.OWN),
    ("GET", f"{API}/channels/{{channel}}"): _read(About.NAMED),
    ("PUT", f"{API}/channels/{{channel}}"): _right(about=About.NAMED),
    ("POST", f"{API}/channels/{{channel}}/releases"): _right(_OPERATOR, _PUBLISHER, about=About.NAMED),
    ("GET", f"{API}/rollouts"): _read(About.ASKED),
    ("GET", f"{API}/rollouts/{{rollout}}"): _read(About.NAMED),
    ("POST", f"{API}/rollouts"): _right(_OPERATOR, _PUBLISHER, about=About.NAMED),
    ("POST", f"{API}/rollouts/{{rollout}}/approve"): _right(_APPROVER, about=About.NAMED),
    ("POST", f"{API}/rollouts/{{rollout}}/abort"): _right(_OPERATOR, _PUBLISHER, _APPROVER, about=About.NAMED),
    # Insights, drift and what is done about it.
    ("GET", f"{API}/insights"): _read(About.ASKED),
    ("GET", f"{API}/insights/groups"): _read(About.ASKED),
    ("GET", f"{API}/insights/export"): _read(About.ASKED),
    ("GET", f"{API}/insights/totals"): _read(About.ASKED),
    ("GET", f"{API}/accuracy"): _read(About.ASKED),
    ("GET", f"{API}/quarantine"): _read(About.FLEET),
    ("GET", f"{API}/drift"): _read(About.ASKED),
    ("GET", f"{API}/drift/alarms"): _read(About.ASKED),
    ("GET", f"{API}/drift/alarms/{{alarm}}"): _read(About.NAMED),
    ("GET", f"{API}/alarms"): _read(About.ASKED),
    ("GET", f"{API}/alarms/{{alarm}}"): _read(About.NAMED),
    ("POST", f"{API}/alarms/{{alarm}}/acknowledge"): _right(_OPERATOR, about=About.NAMED),
    ("GET", f"{API}/retraining"): _read(About.ASKED),
    ("GET", f"{API}/retraining/trigger"): _read(About.ASKED),
    ("GET", f"{API}/retraining/{{run}}"): _read(About.NAMED),
    ("GET", f"{API}/retraining/{{run}}/log"): _read(About.NAMED),
    ("POST", f"{API}/retraining"): _right(_OPERATOR, about=About.NAMED),
    ("POST", f"{API}/retraining/{{run}}/cancel"): _right(_OPERATOR, about=About.NAMED),
    ("POST", f"{API}/labels"): _right(_OPERATOR, about=About.NAMED),
    ("GET", f"{API}/lineage/{{reference}}"): _read(About.OWN),
    ("GET", f"{API}/costs"): _read(About.ASKED),
    ("GET", f"{API}/costs/settings"): _read(About.FLEET),
    ("PUT", f"{API}/costs/settings"): _ADMIN,
    # What devices are not sure of, and who answers it. Inputs and keys go to the addresses of teachers: the
    # administrator's.
    ("POST", f"{API}/escalations"): Right(frozenset(), device=True),
    ("GET", f"{API}/escalations"): _read(About.ASKED),
    ("GET", f"{API}/thresholds"): _read(About.ASKED),
    ("GET", f"{API}/labelling"): _right(_OPERATOR, about=About.ASKED),
    ("POST", f"{API}/labelling/claim"): _right(_OPERATOR, about=About.ASKED),
    ("GET", f"{API}/labelling/label-studio"): _right(_OPERATOR, about=About.ASKED),
    ("POST", f"{API}/labelling/label-studio"): _right(_OPERATOR, about=About.ASKED),
    ("GET", f"{API}/labelling/{{item}}"): _right(_OPERATOR, about=About.NAMED),
    ("POST", f"{API}/labelling/{{item}}/label"): _right(_OPERATOR, about=About.NAMED),
    ("POST", f"{API}/labelling/{{item}}/release"): _right(_OPERATOR, about=About.NAMED),
    ("POST", f"{API}/labelling/{{item}}/skip"): _right(_OPERATOR, about=About.NAMED),
    ("GET", f"{API}/teachers"): _right(_OPERATOR, about=About.FLEET),
    ("GET", f"{API}/teachers/{{teacher}}"): _right(_OPERATOR, about=About.FLEET),
    ("PUT", f"{API}/teachers/{{teacher}}"): _ADMIN,
    ("DELETE", f"{API}/teachers/{{teacher}}"): _ADMIN,
    # Inputs of people and places: for those who work with them; deleting them is the administrator's.
    ("POST", f"{API}/samples"): Right(frozenset(), device=True),
    ("GET", f"{API}/samples"): _right(_OPERATOR, about=About.ASKED),
    ("GET", f"{API}/samples/totals"): _read(About.ASKED),
    ("DELETE", f"{API}/samples"): _right(about=About.ASKED),
    ("GET", f"{API}/samples/deletions"): _read(About.FLEET),
    ("GET", f"{API}/samples/deletions/{{deletion}}"): _read(About.FLEET),
    ("GET", f"{API}/samples/{{sample}}"): _right(_OPERATOR, about=About.NAMED),
    ("GET", f"{API}/samples/{{sample}}/inputs"): _right(_OPERATOR, about=About.NAMED),
    ("PUT", f"{API}/samples/{{sample}}/label"): _right(_OPERATOR, about=About.NAMED),
    # The hub sends to any address that is given here, from inside its network: the administrator's.
    ("GET", f"{API}/webhooks"): _right(_OPERATOR, about=About.FLEET),
    ("POST", f"{API}/webhooks"): _ADMIN,
    ("DELETE", f"{API}/webhooks/{{webhook}}"): _ADMIN,
    ("GET", f"{API}/webhooks/{{webhook}}/deliveries"): _right(_OPERATOR, about=About.FLEET),
    ("POST", f"{API}/webhooks/{{webhook}}/test"): _ADMIN,
}


@dataclass(frozen=True)
class Found:
    """The row of the table that a request is about.

    Attributes:
        path: as the table has it, parameters in braces.
        right: who may; None when no row has this method.
        methods: where no row has this one: those that have one.
        parameters: what stands in the place of each parameter.
    """

    path: str
    right: Right | None
    methods: tuple[str, ...]
    parameters: dict[str, str]


def find(method: str, path: str) -> Found | None:
    """The row for a request, or None: nobody may use an address that has none."""
    without: Found | None = None
    for template, pattern in _patterns():
        if match := pattern.match(path):
            if right := TABLE.get((method, template)):
                return Found(template, right, (), match.groupdict())
            methods = tuple(sorted(known for known, other in TABLE if other == template))
            without = without or Found(template, None, methods, match.groupdict())
    return without


@cache
def _patterns() -> list[tuple[str, re.Pattern[str]]]:
    """Each path with its pattern; one without a parameter before those whose parameter it could be taken for."""
    paths = sorted({path for _, path in TABLE}, key=lambda path: (path.count("{"), path))
    return [(path, compile_path(path)[0]) for path in paths]
