"""The settings of ``cloud-hub``: one typed object. Sources, strongest first: command line, environment, file, default.

``docs/reference/cloud-hub.md`` has a table of them, and a test compares it with this class.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from cloud_hub import exit_codes
from cloud_hub.access.grants import parse_grant
from cloud_hub.errors import StartError
from cloud_hub.programs import TrainingProgram
from cloud_hub.teacher_keys import TeacherKey
from edgeloop.loopback import is_loopback
from edgeloop.protocol import ProtocolError, check_name

ENVIRONMENT_PREFIX = "CLOUD_HUB_"


class Settings(BaseSettings):
    """What a hub is started with; every name with a unit ends in it."""

    model_config = SettingsConfigDict(env_prefix=ENVIRONMENT_PREFIX, extra="forbid", frozen=True)

    data: Path = Field(default=Path("cloud-hub-data"), description="Folder of records, blobs and releases.")
    fleet: str = Field(default="default", description="Name of the fleet: the topics below edgeloop/v1/<fleet>/.")
    insecure: bool = Field(
        default=False,
        description="Development: no signatures, no certificates, no tokens; every address has to be loopback.",
    )
    listen_host: str = Field(default="127.0.0.1", description="Address of the HTTP interface.")
    listen_port: int = Field(default=8800, ge=0, le=65535, description="Port of the HTTP interface; 0 chooses one.")
    public_url: str = Field(
        default="", description="Base URL that devices fetch files from; empty: made of listen_host and listen_port."
    )
    broker: Literal["auto", "mosquitto", "amqtt", "none"] = Field(
        default="auto",
        description="Embedded broker: mosquitto, amqtt, auto (mosquitto where it is installed, else amqtt), "
        "or none for one that runs elsewhere.",
    )
    broker_host: str = Field(default="127.0.0.1", description="Address of the broker: what an embedded one listens on.")
    broker_port: int = Field(default=1883, ge=0, le=65535, description="The broker's port; 0 chooses one, embedded.")
    public_broker: str = Field(
        default="",
        description="Address host:port at which devices reach the broker; empty: made of public_url and broker_port.",
    )
    broker_username: str | None = Field(default=None, description="User name at a broker that runs elsewhere.")
    broker_password: str | None = Field(default=None, repr=False, description="Password at that broker.")
    broker_ca: Path | None = Field(
        default=None,
        description="Certificates by which a broker that runs elsewhere is known, PEM; empty: the hub's CA.",
    )
    broker_certificate: Path | None = Field(
        default=None, description="Certificate that the hub shows that broker, PEM; empty: one of its CA."
    )
    broker_key: Path | None = Field(default=None, description="Key of that certificate, PEM.")
    broker_reload_command: str = Field(
        default="",
        description="Command that has a Mosquitto elsewhere go by the files in <data>/broker when they have changed.",
    )
    server_certificate: Path | None = Field(
        default=None, description="Certificate of the HTTP interface with its chain, PEM; empty: one of the hub's CA."
    )
    server_key: Path | None = Field(default=None, description="Key of that certificate, PEM.")
    server_ca: Path | None = Field(
        default=None, description="Certificates by which devices know that certificate, PEM; empty: the hub's CA alone."
    )
    ca_command: str = Field(
        default="",
        description="Command of another certificate authority: a request on its input, the chain on its output.",
    )
    ca_file: Path | None = Field(default=None, description="Certificates of that authority, PEM.")
    crl_file: Path | None = Field(default=None, description="List of certificates that it has revoked, PEM.")
    certificate_days: float = Field(
        default=90.0,
        gt=0,
        le=3650,
        description="How long a device's certificate holds; it is renewed at two thirds, days.",
    )
    certificate_grace_days: float = Field(
        default=30.0, ge=0, le=3650, description="How long after its end a device may still exchange it, days."
    )
    insights_interval_s: float = Field(
        default=60.0, ge=0.1, le=86_400, description="Length of the intervals that windows are merged into, seconds."
    )
    keep_intervals_s: float = Field(
        default=172_800.0, ge=7200, description="How long windows are kept by interval, then by the hour, seconds."
    )
    keep_hours_s: float = Field(
        default=5_184_000.0,
        ge=691_200,
        description="How long they are kept by the hour, then by the day, seconds; drift looks back eight days.",
    )
    keep_days_s: float = Field(
        default=0.0, ge=0, description="How long they are kept by the day, seconds; 0: for ever. Totals always are."
    )
    ingest_queue: int = Field(default=16_384, ge=16, description="Messages from devices that wait in memory, at most.")
    ingest_batch: int = Field(default=4096, ge=1, description="Messages that are committed together, at most.")
    quarantine_rows: int = Field(
        default=100, ge=0, description="Refused messages that are kept for each device; older ones are only counted."
    )
    escalation_queue: int = Field(default=256, ge=4, description="Escalations that wait for one teacher, at most.")
    escalation_queue_bytes: int = Field(
        default=64 << 20, ge=1 << 20, description="Bytes of them, at most; one escalation has 16 MiB at most."
    )
    escalation_patience_s: float = Field(
        default=60.0, gt=0, le=3600, description="How long one that no client waits for may take, seconds."
    )
    samples_max_bytes: int = Field(
        default=10 << 30, ge=1 << 20, description="Bytes of samples that are kept, at most; a tenth of one device's."
    )
    keep_escalations_s: float = Field(
        default=7_776_000.0, ge=60, description="How long records of escalations are kept, seconds."
    )
    teacher_keys: dict[str, TeacherKey] = Field(
        default={},
        description="Name of a teacher's key → where it is and to which address it may be sent: "
        "`{url, env}` or `{url, file}`.",
    )
    max_blob_bytes: int = Field(default=4 << 30, ge=1, description="Largest file of a release, bytes.")
    request_rate: float = Field(
        default=100.0,
        ge=0,
        description="HTTP requests of one principal, or of one unknown address, in a second; "
        "ten seconds' worth may come at once. 0: any.",
    )
    oidc_issuer: str = Field(
        default="", description="Identity provider (OpenID Connect) by which people sign in; empty: none."
    )
    oidc_client_id: str = Field(default="cloud-hub", description="This hub's name at the identity provider.")
    oidc_client_secret: str | None = Field(default=None, repr=False, description="Its secret there, if it has one.")
    oidc_audience: str = Field(default="", description="Whom tokens of programs have to be for; empty: oidc_client_id.")
    oidc_roles_claim: str = Field(
        default="roles", description="Claim that names roles; dots lead into it, such as realm_access.roles."
    )
    oidc_roles: dict[str, str] = Field(
        default={},
        description="Value of that claim → role, with limits such as `publisher models=digits`; "
        "empty: the names of the roles themselves.",
    )
    session_s: float = Field(
        default=28_800.0, ge=60, description="After how long somebody who signed in has to do so again, seconds."
    )
    training_programs: dict[str, TrainingProgram] = Field(
        default={}, description="Programs that may retrain models, by name; see below."
    )
    training_at_once: int = Field(
        default=2, ge=1, le=64, description="Training runs at the same time, each of another model."
    )
    ray_address: str = Field(
        default="", description="Address of a Ray cluster's jobs, http://host:8265, for programs that run there."
    )
    ray_token: str | None = Field(default=None, repr=False, description="Token that this cluster asks for, if it does.")
    stop_timeout_s: float = Field(
        default=10.0, gt=0, description="Time that an orderly stop may take, seconds; then what is left is cut off."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="What is logged.")

    @field_validator("fleet")
    @classmethod
    def _a_name(cls, value: str) -> str:
        try:
            return check_name(value, "fleet")
        except ProtocolError as error:
            raise ValueError(str(error)) from error

    @field_validator("public_url")
    @classmethod
    def _a_url(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("it has to begin with http:// or https://")
        return value.rstrip("/")

    @field_validator("oidc_issuer")
    @classmethod
    def _an_issuer(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and not (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))):
            raise ValueError("it has to begin with https://, or be on loopback")
        return value

    @field_validator("oidc_roles")
    @classmethod
    def _grants(cls, value: dict[str, str]) -> dict[str, str]:
        for grant in value.values():
            parse_grant(grant)
        return value

    @field_validator("public_broker")
    @classmethod
    def _an_address(cls, value: str) -> str:
        host, colon, port = value.rpartition(":")
        if value and not (host and colon and port.isdecimal() and 0 < int(port) < 65_536):
            raise ValueError("it has to be host:port")
        return value

    @model_validator(mode="after")
    def _files_in_pairs(self) -> Settings:
        for certificate, key in (("server_certificate", "server_key"), ("broker_certificate", "broker_key")):
            if (getattr(self, certificate) is None) != (getattr(self, key) is None):
                raise ValueError(f"{certificate} and {key} belong together: set both")
        if self.ca_command and self.ca_file is None:
            raise ValueError("ca_file: ca_command needs the certificates of the authority that it reaches")
        return self

    @model_validator(mode="after")
    def _insecure_stays_here(self) -> Settings:
        for name in ("listen_host", "broker_host") if self.insecure else ():
            if not is_loopback(host := getattr(self, name)):
                raise ValueError(
                    f"{name}: an insecure hub is reached from this machine only, and {host or 'every address'} "
                    "is not loopback. Leave insecure = false for other addresses"
                )
        if not self.insecure and self.public_url.startswith("http://"):
            raise ValueError("public_url: it has to begin with https://, unless insecure = true")
        return self

    @model_validator(mode="after")
    def _a_broker(self) -> Settings:
        if self.broker == "none" and self.broker_port == 0:
            raise ValueError("broker_port: a broker that runs elsewhere has a port; 0 is for an embedded one")
        if self.broker == "amqtt" and not is_loopback(self.broker_host):
            raise ValueError(
                f"broker_host: aMQTT listens on loopback only, not on {self.broker_host}, since its access rules fail. "
                "Install Mosquitto for other addresses"
            )
        return self


def is_wildcard(host: str) -> bool:
    """Whether it stands for every address of this machine."""
    return host in ("", "0.0.0.0", "::")


def load(config: Path | None, **overrides: Any) -> Settings:
    """Read the settings.

    Args:
        config: a TOML file, or None.
        **overrides: what the command line says; None where it says nothing.

    Raises:
        StartError: the file cannot be read, or a setting is wrong; the message names each.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    values = {} if config is None else _read(config)
    # pydantic-settings takes its arguments before the environment: what the environment names leaves the file's values.
    for name in [name for name in values if ENVIRONMENT_PREFIX + name.upper() in {key.upper() for key in os.environ}]:
        del values[name]
    try:
        return Settings(**{**values, **given})
    except ValidationError as error:
        problems = "; ".join(_problem(dict(problem)) for problem in error.errors(include_url=False))
        where = "the settings" if config is None else str(config)
        raise StartError(
            f"{where}: {problems}", "docs/reference/cloud-hub.md lists every setting", exit_codes.SETTINGS
        ) from error


def _read(config: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(config.read_text("utf-8"))
    except OSError as error:
        raise StartError(
            f"{config} cannot be read: {error.strerror}", "check the path after --config", exit_codes.SETTINGS
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StartError(f"{config} is no TOML file: {error}", "mend the line named", exit_codes.SETTINGS) from error


def _problem(problem: dict[str, Any]) -> str:
    name = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        return f"{name}: there is no such setting"
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"{name}: {message}" if name else message
