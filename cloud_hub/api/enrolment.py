"""``/api/v1/enrolments``, ``/api/v1/certificates``: how devices get their certificates, and how they lose them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from cloud_hub.api.errors import responses
from cloud_hub.errors import AuthorityError, BadRequest, Conflict, Forbidden, NotFound, Unauthorized
from cloud_hub.identities import Identities
from cloud_hub.identity.certificates import MAX_REQUEST_BYTES
from cloud_hub.identity.enrolments import Enrolment
from cloud_hub.identity.registry import IdentityRow
from cloud_hub.tls import client_certificate
from edgeloop.protocol import ProtocolError
from edgeloop.protocol.enrolment import EnrolmentToken

if TYPE_CHECKING:
    from cloud_hub.app import Hub

_CSR = Field(max_length=MAX_REQUEST_BYTES, description="Certificate request (PKCS#10) of the device's key, PEM.")


class EnrolmentBody(BaseModel):
    """What a token is for."""

    device: str = Field(
        default="*", max_length=64, description="Name of the device, or a pattern with *.", examples=["camera-*"]
    )
    channels: list[str] = Field(default=["stable"], min_length=1, max_length=64, description="Channels it may follow.")
    expires_s: float = Field(default=3600.0, gt=0, le=31_536_000, description="Seconds until the token ends.")
    uses: int = Field(default=1, ge=1, le=100_000, description="Devices that may enrol with it.")
    replaces: bool = Field(default=False, description="Whether it takes the name of a device that has another key.")


class EnrolmentAnswer(BaseModel):
    """A token, without its secret."""

    id: str
    device: str
    channels: list[str]
    uses: int
    used: int
    replaces: bool
    created: float = Field(description="Unix seconds.")
    expires: float = Field(description="Unix seconds.")
    withdrawn: float | None = Field(description="Unix seconds since when it is void, or null.")


class EnrolmentMade(EnrolmentAnswer):
    """A fresh token: this answer is the only place where it is."""

    token: str = Field(description="For `edge-agent enrol --token`.")


class RedeemBody(BaseModel):
    """What a device asks for."""

    token: str = Field(max_length=256, description="As `cloud-hub enrolment create` printed it.")
    device: str = Field(max_length=64, description="The name that the device wants.")
    request: str = _CSR


class RedeemAnswer(BaseModel):
    """What a device has to know of its fleet."""

    device: str
    fleet: str
    certificate: str = Field(description="Its certificate with its chain, PEM.")
    ca: str = Field(description="The certificates by which it knows broker and hub, PEM.")
    root: str | None = Field(description="Root metadata of signed releases, or null.")
    hub: str = Field(description="Base URL of the hub; empty: the one that this was asked at.")
    broker_host: str = Field(description="Address of the broker; empty: the hub's.")
    broker_port: int
    broker_tls: bool = Field(description="Whether the broker asks for the certificate.")
    channels: list[str] = Field(description="Channels that it may follow; the first one is its own.")
    now: float = Field(description="The hub's clock, unix seconds.")


class RenewBody(BaseModel):
    """What a device that has a certificate asks for."""

    request: str = _CSR


class RenewAnswer(BaseModel):
    """A new certificate."""

    device: str
    certificate: str = Field(description="With its chain, PEM.")
    ca: str = Field(description="The certificates by which broker and hub are known, PEM.")


class CertificateAnswer(BaseModel):
    """An enrolled device."""

    device: str
    channels: list[str]
    enrolment: str = Field(description="Id of the token that it enrolled with.")
    enrolled: float = Field(description="Unix seconds.")
    revoked: float | None = Field(description="Unix seconds since when it may do nothing, or null.")
    reason: str = Field(description="Why.")
    ends: float = Field(description="Unix seconds at which its newest certificate ends.")
    certificates: int = Field(description="Number of those that hold.")


class RevokeBody(BaseModel):
    """Why a device loses its rights."""

    reason: str = Field(default="", max_length=500)


def router(hub: Hub) -> APIRouter:
    """The addresses of identities."""
    routes = APIRouter(tags=["identities"])

    @routes.get("/enrolments", responses=responses(Conflict))
    def list_enrolments() -> list[EnrolmentAnswer]:
        """Tokens, newest first."""
        return [EnrolmentAnswer(**_token(one)) for one in _identities(hub).enrolments.all()]

    @routes.post("/enrolments", status_code=201, responses=responses(Conflict, BadRequest))
    def create_enrolment(body: EnrolmentBody) -> EnrolmentMade:
        """Make a token."""
        token, made = _identities(hub).create_token(
            device=body.device,
            channels=body.channels,
            expires_s=body.expires_s,
            uses=body.uses,
            replaces=body.replaces,
        )
        return EnrolmentMade(token=token.text, **_token(made))

    @routes.delete("/enrolments/{enrolment}", status_code=204, responses=responses(NotFound, Conflict))
    def withdraw_enrolment(enrolment: str) -> None:
        """Make a token void; devices that have enrolled with it stay."""
        _identities(hub).enrolments.withdraw(enrolment)

    @routes.get("/enrolments/ca", response_class=Response, responses=responses(Conflict))
    def get_ca() -> Response:
        """The certificates by which the hub is known, PEM. A token has their hash: without it trust no such answer."""
        return Response(_identities(hub).own.trust, media_type="application/x-pem-file")

    @routes.post(
        "/enrolments/redeem", responses=responses(Unauthorized, Forbidden, Conflict, BadRequest, AuthorityError)
    )
    def redeem(body: RedeemBody) -> RedeemAnswer:
        """Exchange a token for a certificate; again, with the same key, it gives the same one."""
        identities = _identities(hub)
        try:
            token = EnrolmentToken.parse(body.token)
        except ProtocolError as error:
            raise BadRequest(str(error)) from error
        done = identities.redeem(token, body.device, _pem(body.request))
        host, port = identities.public_broker(hub.addresses.broker[1])
        root = identities.root_of(token)
        return RedeemAnswer(
            device=done.device,
            fleet=hub.settings.fleet,
            certificate=done.certificate.decode("ascii"),
            ca=identities.own.trust.decode("ascii"),
            root=None if root is None else root.decode("utf-8"),
            hub=hub.settings.public_url,
            broker_host=host,
            broker_port=port,
            broker_tls=hub.addresses.broker_tls,
            channels=list(done.channels),
            now=hub.clock(),
        )

    @routes.post("/devices/self/certificate", responses=responses(Forbidden, Conflict, BadRequest, AuthorityError))
    def renew(body: RenewBody, request: Request) -> RenewAnswer:
        """A new certificate for the device whose certificate the connection shows."""
        identities = _identities(hub)
        shown = client_certificate(request.scope)
        if shown is None:
            raise Forbidden(
                "the connection shows no device's certificate", "reach the hub without a proxy that ends TLS"
            )
        device, chain = identities.registry.renew(shown, _pem(body.request))
        ca = identities.own.trust.decode("ascii")
        return RenewAnswer(device=device, certificate=chain.decode("ascii"), ca=ca)

    @routes.get("/certificates", responses=responses(Conflict))
    def list_certificates(
        device: Annotated[str | None, Query(max_length=64, description="Only this one.")] = None,
    ) -> list[CertificateAnswer]:
        """Every device that was ever enrolled."""
        found = _identities(hub).registry.all()
        return [_certificate(one) for one in found if device is None or one.device == device]

    @routes.post("/devices/{device}/revoke", status_code=204, responses=responses(NotFound, Conflict))
    def revoke(device: str, body: RevokeBody) -> None:
        """Take every right from a device, at once."""
        _identities(hub).registry.revoke(device, body.reason)

    return routes


def _identities(hub: Hub) -> Identities:
    if hub.identities is None:
        raise Conflict("an insecure hub enrols no devices", "start it with insecure = false")
    return hub.identities


def _pem(text: str) -> bytes:
    try:
        return text.encode("ascii")
    except UnicodeEncodeError as error:
        raise BadRequest("the certificate request is no PEM of PKCS#10") from error


def _token(one: Enrolment) -> dict[str, Any]:
    return {**vars(one), "channels": list(one.channels)}


def _certificate(one: IdentityRow) -> CertificateAnswer:
    return CertificateAnswer(**{**vars(one), "channels": list(one.channels)})
