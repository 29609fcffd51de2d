"""The settings of ``edge-agent``: one typed object. Sources, strongest first: environment, file, default.

docs/reference/edge-agent.md has a table of them, and a test compares it with this class.
"""

from __future__ import annotations

import os
import re
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeVar

from edge_agent.fields import Field, Text, read
from edgeloop.loopback import is_loopback
from edgeloop.protocol import ProtocolError, check_name
from edgeloop.records import dataclass

T = TypeVar("T")

ENVIRONMENT_PREFIX = "EDGE_AGENT_"


class SettingsError(ValueError):
    """A setting is wrong; the message names each, and says where it stands."""


def _host(url: str) -> str:
    found = re.match(r"https?://(?:\[([^\]]*)\]|([^/:]*))", url)
    return "" if found is None else found[1] or found[2]


def _a_name(value: str) -> str:
    try:
        return check_name(value, "name")
    except ProtocolError as error:
        raise ValueError(str(error)) from error


def _a_url(value: str) -> str:
    if not value.startswith(("http://", "https://")):
        raise ValueError("it has to begin with http:// or https://")
    return value.rstrip("/")


def _with_grpc(value: T) -> T:
    if find_spec("grpc") is None:
        raise ValueError("it needs grpcio, which is not installed: pip install 'edgeloop[agent,grpc]'")
    return value


def _options(value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    # onnxruntime takes a while to import: who sets no option does not wait for it.
    from edgeloop.runtime.options import read_options

    read_options(value)
    return value


def _epsilon(value: float) -> float:
    if value and value < 0.01:
        raise ValueError("it has to be 0, or 0.01 and more: less leaves nothing but noise")
    if value and find_spec("dp_accounting") is None:
        raise ValueError("it needs dp-accounting, which is not installed: pip install 'edgeloop[agent,privacy]'")
    return value


def _function(value: str) -> str:
    if value and not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*", value):
        raise ValueError("it has to be module:name, such as faces.samples:blur")
    return value


def _aspects(names: tuple[str, ...]) -> tuple[str, ...]:
    from edgeloop.insights.aspects import ASPECTS

    known = [aspect.name for aspect in ASPECTS]
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"there is no aspect {unknown[0]!r:.80}; there are {', '.join(known)}")
    return names


def _sources(tables: tuple[Any, ...]) -> tuple[Any, ...]:
    # An agent that is called and does not listen goes without these classes.
    from edge_agent.flow_settings import SOURCES, read_all

    return read_all(SOURCES, tables)


def _sinks(tables: tuple[Any, ...]) -> tuple[Any, ...]:
    from edge_agent.flow_settings import SINKS, read_all

    return read_all(SINKS, tables)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What an agent is started with; every name with a unit ends in it."""

    device: str = Field(description="Name of this device; unique in its fleet.", check=_a_name)
    fleet: str = Field(
        default="default", description="Name of the fleet: the topics below edgeloop/v1/<fleet>/.", check=_a_name
    )
    channel: str = Field(
        default="stable", description="Channel to follow, unless the hub wishes another.", check=_a_name
    )
    hub: str = Field(
        default="http://127.0.0.1:8800",
        description="Base URL of the hub; channel documents may name another.",
        check=_a_url,
    )
    insecure: bool = Field(
        default=False,
        description="Development: no signatures, no certificates; the hub and its broker have to be on this machine.",
    )
    expiry_grace_s: float = Field(
        default=604_800.0,
        ge=0,
        description="Seconds for which signed metadata counts after its end, for devices and hubs that were away.",
    )
    models: tuple[str, ...] = Field(
        default=(), description="Models whose signed releases are taken; empty: the first that comes, and no other."
    )
    broker_host: str = Field(default="127.0.0.1", description="Address of the MQTT broker.")
    broker_port: int = Field(default=1883, ge=1, le=65535, description="Its port.")
    broker_username: str | None = Field(default=None, description="User name at the broker.")
    broker_password: str | None = Field(default=None, repr=False, description="Password at the broker.")
    broker_ca: Path | None = Field(
        default=None,
        description="Certificates by which a broker is known that is not the hub's, PEM; empty: the enrolment's.",
    )
    broker_certificate: Path | None = Field(
        default=None, description="Certificate that is shown to that broker, PEM; empty: none."
    )
    broker_key: Path | None = Field(default=None, description="Key of that certificate, PEM.")
    data: Path = Field(default=Path("edge-agent-data"), description="Folder of releases, outbox and state.")
    listen_host: str = Field(default="127.0.0.1", description="Address of the HTTP door.")
    listen_port: int = Field(default=8080, ge=0, le=65535, description="Port of the HTTP door; 0 chooses one.")
    listen_socket: Path | None = Field(
        default=None, description="Unix-domain socket at which HTTP is served as well; empty: none."
    )
    listen_socket_mode: Literal["0600", "0660"] = Field(
        default="0600", description="Who may use the sockets: the agent's user alone, or its group too."
    )
    grpc_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        check=_with_grpc,
        description="Port of the gRPC door, on listen_host; 0 chooses one; empty: there is none.",
    )
    grpc_socket: Path | None = Field(
        default=None,
        check=_with_grpc,
        description="Unix-domain socket at which gRPC is served as well, or alone; empty: none.",
    )
    shared_memory: tuple[str, ...] = Field(
        default=(), description="Prefixes of shared memory that clients may hand over, such as /camera-; empty: none."
    )
    max_body_bytes: int = Field(default=64 << 20, ge=1024, description="Largest body of a request, bytes.")
    max_picture_pixels: int = Field(
        default=25_000_000, ge=1, description="Largest picture of a request that is decoded, pixels."
    )
    max_text_bytes: int = Field(default=64 << 10, ge=1, description="Longest text among a model's inputs, bytes.")
    request_deadline_s: float = Field(default=30.0, gt=0, description="Seconds after which a run is stopped.")
    model_repository: Path | None = Field(
        default=None, description="Folder of packages that are served beside the channel's model; empty: none."
    )
    repository_api: bool = Field(default=False, description="Whether clients may load and unload those packages.")
    instances: int = Field(
        default=0, ge=0, le=256, description="Runs of one model at once; 0: as many as the policy's threads allow."
    )
    max_waiting: int = Field(default=64, ge=1, description="Requests that may wait for one model; more get a 429.")
    max_batch: int = Field(
        default=32,
        ge=1,
        description="Rows of a batch of waiting requests, where that is measured to help; 1: none.",
    )
    batch_delay_ms: float = Field(
        default=0.0, ge=0, description="How long a request may wait for others, milliseconds."
    )
    preferred_batches: tuple[int, ...] = Field(
        default=(), description="Sizes of a batch that are waited for within the delay; empty: max_batch."
    )
    policy: Literal["quiet", "balanced", "fast"] = Field(
        default="balanced", description="How much of the machine a run may take: one thread, half of the cores, or all."
    )
    threads: int = Field(
        default=0, ge=0, le=1024, description="Threads of one run; 0: those that the policy allows are measured."
    )
    allowed_providers: tuple[str, ...] = Field(
        default=(), description="Execution providers that may be tried; empty: all that this onnxruntime has."
    )
    providers: dict[str, dict[str, Any]] | None = Field(
        default=None,
        description="Options by execution provider, as tables `[providers.CUDAExecutionProvider]`; see providers.md.",
        check=_options,
    )
    provider_deadline_s: float = Field(
        default=900.0, gt=0, description="Seconds in which a provider has to load a model; it may have to compile it."
    )
    compiled_max_bytes: int = Field(
        default=2 << 30, ge=0, description="Bytes of compiled models that are kept; the oldest go first."
    )
    required_providers: tuple[str, ...] = Field(
        default=(), description="Execution providers of which one has to run the model; empty: any."
    )
    allow_cpu_fallback: bool = Field(
        default=False, description="Whether nodes that the chosen provider lacks may run on the CPU."
    )
    max_latency_ms: float = Field(default=0.0, ge=0, description="Budget for one row in testing, milliseconds; 0: any.")
    max_memory_bytes: int = Field(
        default=0, ge=0, description="Memory of the whole agent, bytes: a release that takes more is refused; 0: any."
    )
    trial_budget_s: float = Field(default=2.0, gt=0, description="Seconds for timing the candidates of a release.")
    observe: bool = Field(default=True, description="Whether predictions are observed: windows, feedback, insights.")
    full_rows_per_s: float = Field(
        default=250.0,
        gt=0,
        description="Rows a second whose inputs and features are observed; of more a random share is.",
    )
    window_s: float = Field(default=60.0, gt=0, description="Seconds after which an open window is closed.")
    checkpoint_s: float = Field(
        default=2.0, gt=0, description="Seconds between checkpoints: a killed agent loses no more."
    )
    report_s: float = Field(default=30.0, gt=0, description="Seconds between two reports when nothing changes.")
    outbox_bytes: int = Field(
        default=64 << 20, ge=1 << 16, description="Size that the outbox keeps to, bytes: windows give up resolution."
    )
    insights_aspects: tuple[str, ...] = Field(
        default=(),
        description="Aspects that may leave the device, besides counts and classes; empty: all.",
        check=_aspects,
    )
    insights_bytes_per_day: int = Field(
        default=0, ge=0, description="Bytes of insights that may leave it in 24 hours, whatever the hub allows; 0: any."
    )
    insights_min_group: int = Field(
        default=0, ge=0, description="Predictions that a window holds at least before it leaves, if the hub asks less."
    )
    insights_segments: bool = Field(
        default=True, description="Whether the hub may have windows kept apart by a parameter of requests."
    )
    escalation_travels: tuple[Literal["input", "small", "features"], ...] = Field(
        default=(),
        description="Forms of inputs that may go to the teacher: input, small, features; empty: nothing leaves.",
    )
    escalation_per_day: int = Field(
        default=0, ge=0, description="Inputs that may go to the teacher in 24 hours, whatever the hub allows; 0: any."
    )
    escalation_bytes_per_day: int = Field(
        default=0, ge=0, description="Bytes that may go to the teacher in 24 hours, whatever the hub allows; 0: any."
    )
    replay_rows_per_s: float = Field(
        default=10.0, gt=0, description="Windows a second that leave of a backlog, when the hub is there again."
    )
    replay_bytes_per_s: float = Field(default=65536.0, gt=0, description="Bytes a second that leave of a backlog.")
    replay_jitter_s: float = Field(
        default=300.0, ge=0, description="Seconds that a backlog waits at most, at random, before it begins to leave."
    )
    privacy_epsilon: float = Field(
        default=0.0,
        ge=0,
        le=100,
        check=_epsilon,
        description="What a period may tell of a prediction and a label of each window at most; 0: what the hub asks.",
    )
    privacy_delta: float = Field(
        default=1e-6, ge=1e-15, le=0.01, description="Probability with which it may tell more."
    )
    privacy_days: float = Field(default=1.0, ge=0.001, le=3660, description="Length of a period, days.")
    samples: bool = Field(
        default=False, description="Consent: whether inputs may be kept and sent for retraining, if the hub asks."
    )
    samples_per_day: int = Field(
        default=0, ge=0, description="Samples that may be kept in 24 hours, whatever the hub allows; 0: any."
    )
    samples_bytes_per_day: int = Field(
        default=0, ge=0, description="Bytes of samples that may be kept in 24 hours, whatever the hub allows; 0: any."
    )
    samples_max_bytes: int = Field(
        default=64 << 20, ge=1 << 16, description="Bytes of samples that wait for the hub; beyond it the oldest go."
    )
    samples_bytes_per_s: float = Field(
        default=65536.0, ge=0, description="Bytes of samples that leave in a second; 0: any."
    )
    samples_redact: str = Field(
        default="",
        description="Function, module:name, that each sample passes before it is kept; empty: none.",
        check=_function,
    )
    trials: bool = Field(
        default=False, description="Consent: whether the hub may have models measured here while the device is idle."
    )
    trials_max_bytes: int = Field(
        default=256 << 20, ge=1, description="Bytes of the files of one trial; a larger one is refused."
    )
    trials_max_s: float = Field(
        default=300.0, gt=0, description="Seconds of measuring in one trial, all its candidates together."
    )
    trials_max_memory_bytes: int = Field(
        default=1 << 30, ge=1 << 20, description="Memory of the process that measures; it is killed beyond it."
    )
    trials_busy_per_s: float = Field(
        default=1.0, ge=0, description="Answered rows a second above which the device is not idle, and no trial runs."
    )
    feedback_keep: int = Field(default=8192, ge=0, description="Recent predictions that wait for their labels.")
    probation_s: float = Field(default=60.0, ge=0, description="Seconds that a new release is watched, at least.")
    probation_min_predictions: int = Field(default=20, ge=0, description="Predictions it is watched for, at least.")
    probation_max_s: float = Field(
        default=900.0, gt=0, description="Seconds after which a device without that much traffic commits as well."
    )
    probation_max_error_share: float = Field(
        default=0.05, ge=0, le=1, description="Share of failed or non-finite answers beyond which it goes back."
    )
    probation_max_slowdown: float = Field(
        default=10.0,
        gt=1,
        description="Median latency, by row and by run, as a multiple of that before, beyond which it goes back.",
    )
    max_release_bytes: int = Field(default=8 << 30, ge=1, description="Largest release that is fetched, bytes.")
    max_fetch_bytes_per_s: float = Field(
        default=0.0, ge=0, description="Bandwidth that updates take, bytes per second; 0: any."
    )
    disk_quota_bytes: int = Field(
        default=0, ge=0, description="Bytes that the data folder may take, old releases removed; 0: any."
    )
    crash_loop_ends: int = Field(
        default=3, ge=1, description="Unclean ends after which a new release gives way to the one before it."
    )
    crash_loop_s: float = Field(
        default=600.0, gt=0, description="Seconds of serving in one life after which they are not counted any more."
    )
    disk_reserve_bytes: int = Field(default=64 << 20, ge=0, description="Bytes of the disk that updates leave free.")
    sources: tuple[Any, ...] = Field(
        default=(), description="What the agent listens to, [[sources]]: see flows.md.", check=_sources
    )
    sinks: tuple[Any, ...] = Field(
        default=(), description="Where the results of sources go, [[sinks]]: see flows.md.", check=_sinks
    )
    hot_celsius: float = Field(
        default=85.0, ge=0, description="Heat of the device above which the agent holds back, °C; 0: never."
    )
    low_battery_percent: float = Field(
        default=20.0, ge=0, le=100, description="Charge below which it holds back while it runs on battery; 0: never."
    )
    stop_timeout_s: float = Field(default=10.0, gt=0, description="Time that an orderly stop may take, seconds.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="What is logged.")
    log_format: Literal["text", "json"] = Field(default="text", description="How a line of the log is written.")

    def __post_init__(self) -> None:
        """Hold settings to one another."""
        if self.insecure:
            for name, host in (("broker_host", self.broker_host), ("hub", _host(self.hub))):
                if not is_loopback(host):
                    raise ValueError(
                        f"{name}: an insecure agent speaks to its own machine only, and {host} is not loopback; "
                        "enrol the device, and leave insecure = false"
                    )
        if (self.broker_certificate is None) != (self.broker_key is None):
            raise ValueError("broker_certificate and broker_key belong together: set both")
        if self.broker_certificate is not None and self.broker_ca is None:
            raise ValueError("broker_ca: it is needed beside broker_certificate")
        if self.sources:
            from edge_agent.flow_settings import check_flows

            check_flows(self.sources, self.sinks)

    @property
    def own_url(self) -> str:
        """Base URL at which a command on this device reaches the agent that these settings start."""
        host = "127.0.0.1" if self.listen_host in ("0.0.0.0", "::") else self.listen_host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.listen_port}"


def load(config: Path | None) -> Settings:
    """Read the settings.

    Args:
        config: a TOML file, or None for the environment and defaults alone.

    Raises:
        SettingsError: the file cannot be read, or a setting is wrong; the message names each.
    """
    values = {} if config is None else _read(config)
    known = {ENVIRONMENT_PREFIX + name.upper(): name for name in Settings.__dataclass_fields__}
    for variable, text in os.environ.items():
        if (name := known.get(variable.upper())) is not None:
            values[name] = Text(text)
    try:
        return read(Settings, values)
    except ValueError as error:
        where = "the settings" if config is None else str(config)
        raise SettingsError(f"{where}: {error}. docs/reference/edge-agent.md lists every setting") from error


def _read(config: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(config.read_text())
    except OSError as error:
        raise SettingsError(f"{config} cannot be read: {error.strerror}; name the file with --config") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{config} is not TOML: {error}") from error
