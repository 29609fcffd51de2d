"""Each part of an agent, made of its settings: which settings a part gets is said here and nowhere else."""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

from edge_agent.identity import Identity, TlsOf
from edge_agent.logs import Log
from edge_agent.neighbour import Neighbour
from edge_agent.observing.assembly import Observing
from edge_agent.observing.pace import ReplayRules
from edge_agent.observing.store import StoreError
from edge_agent.operator_key import make_key
from edge_agent.ports import LoadedRelease, Trust
from edge_agent.sampling.assembly import Samples, SamplesRules
from edge_agent.service import ServiceManager
from edge_agent.serving.batching import BatchRules
from edge_agent.serving.dataplane import DataPlane, ServingRules
from edge_agent.serving.repository import Refusal
from edge_agent.settings import Settings
from edge_agent.strain import StrainRules
from edge_agent.trust.anchor import Anchor
from edge_agent.trust.open import NoRoot, OpenTrust
from edge_agent.updates import UpdateMachine, UpdateSettings
from edge_agent.updates.blobs import ReleaseFiles
from edge_agent.updates.disk import Disk
from edge_agent.updates.errors import Refused
from edge_agent.updates.fetch import FetchLimits
from edge_agent.updates.probation import ProbationRules
from edge_agent.updates.rules import CrashLoop
from edge_agent.updates.store import UpdateStore
from edge_agent.updates.testing import TestingRules, load_tested
from edgeloop.insights import InsightsError, Profile
from edgeloop.insights.policy import Limits
from edgeloop.insights.privacy.rule import PrivacyRule
from edgeloop.package import Index, Package, PackageError, audit_in_child
from edgeloop.sampling.policy import SamplesLimits

if TYPE_CHECKING:
    from edge_agent.escalating.escalator import Escalator
    from edge_agent.flows.assembly import Flows
    from edge_agent.identity.renewal import Renewal
    from edge_agent.serving.shared_memory import SharedMemory
    from edge_agent.trials import Trials
    from edgeloop.cascade.policy import EscalationLimits


log = Log(__name__)


class DataError(Exception):
    """The data folder cannot be used; the message says why."""


def lock(data: Path) -> IO[str]:
    """Make the data folder ours: two agents on one folder would count twice."""
    try:
        Disk().make_folder(data)
        lock = (data / "lock").open("a+")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise DataError(f"another agent uses {data}; give each its own data folder") from error
    except OSError as error:
        raise DataError(f"{data} cannot be used: {error.strerror}; set data to a folder that can be written") from error
    return lock


def operator_key(data: Path) -> str:
    """The key of whoever may command the agent over HTTP."""
    try:
        return make_key(data)
    except OSError as error:
        raise DataError(f"{error.filename} cannot be used: {error.strerror}; make it the agent's own") from error


def observing(settings: Settings, closed: Callable[[], None]) -> Observing:
    """Windows, labels and the outbox."""
    files = ReleaseFiles(settings.data)

    def profile_of(digest: str) -> Profile | None:
        index = files.index(digest)
        try:
            return None if index is None else Package.open(files.folder(digest), index=index).profile()
        except (PackageError, InsightsError):
            return None

    try:
        return Observing(
            settings.data / "agent.db",
            window_s=settings.window_s,
            checkpoint_s=settings.checkpoint_s,
            feedback_keep=settings.feedback_keep,
            outbox_bytes=settings.outbox_bytes,
            full_rows_per_s=settings.full_rows_per_s,
            limits=limits(settings),
            replay=replay_rules(settings),
            profile_of=profile_of,
            closed=closed,
        )
    except StoreError as error:
        raise DataError(str(error)) from error


def limits(settings: Settings) -> Limits:
    """What the device's owner lets leave it."""
    privacy = None
    if settings.privacy_epsilon:
        privacy = PrivacyRule(settings.privacy_epsilon, settings.privacy_delta, settings.privacy_days)
    return Limits(
        aspects=settings.insights_aspects or None,
        bytes_per_day=settings.insights_bytes_per_day or None,
        min_group=settings.insights_min_group,
        segments=settings.insights_segments,
        privacy=privacy,
    )


def escalating(settings: Settings, observing: Observing) -> Escalator | None:
    """The cascade; None where the owner lets nothing travel, or nothing is observed, and then it is not imported."""
    if not settings.escalation_travels or not settings.observe:
        return None
    from edge_agent.escalating.allowance import Allowance
    from edge_agent.escalating.escalator import Escalator
    from edge_agent.observing.policy import PolicyInForce
    from edgeloop.cascade.policy import KEY, EscalationPolicy

    try:
        policy = PolicyInForce(observing.store, escalation_limits(settings), EscalationPolicy, KEY)
        return Escalator(policy, Allowance(observing.store, policy.current), observing.recorder, settings.device)
    except StoreError as error:
        raise DataError(str(error)) from error


def escalation_limits(settings: Settings) -> EscalationLimits:
    """What the device's owner lets go to the hub's teacher."""
    from edgeloop.cascade.policy import EscalationLimits

    return EscalationLimits(
        travels=settings.escalation_travels,
        per_day=settings.escalation_per_day or None,
        bytes_per_day=settings.escalation_bytes_per_day or None,
    )


def replay_rules(settings: Settings) -> ReplayRules:
    """How a backlog of windows leaves."""
    return ReplayRules(settings.replay_rows_per_s, settings.replay_bytes_per_s, settings.replay_jitter_s)


def samples(settings: Settings, observing: Observing, plane: DataPlane, channel: Callable[[], str]) -> Samples:
    """Inputs that are kept for retraining, where both owners want that."""
    alarms = observing.recorder.alarms
    found = Samples(
        settings.device,
        observing.store,
        settings.data / "samples.db",
        samples_limits(settings),
        SamplesRules(settings.samples_max_bytes, settings.samples_bytes_per_s, settings.samples_redact),
        channel=channel,
        offers=plane.sample,
        drifted=lambda release: any(alarm.release == release for alarm in alarms.open),
    )
    observing.recorder.tell_labels(found.labelled)
    return found


def samples_limits(settings: Settings) -> SamplesLimits:
    """What the device's owner lets be kept and sent of inputs."""
    return SamplesLimits(settings.samples, settings.samples_per_day or None, settings.samples_bytes_per_day or None)


def flows(settings: Settings, plane: DataPlane) -> Flows | None:
    """Sources and sinks; None where there are no sources, and then their libraries are not imported."""
    if not settings.sources:
        return None
    from edge_agent.flows.assembly import Flows
    from edge_agent.flows.brokers import Device

    device = Device(
        settings.fleet,
        settings.device,
        settings.broker_host,
        settings.broker_port,
        settings.broker_username,
        settings.broker_password,
    )
    return Flows(settings.sources, settings.sinks, plane, device, settings.data / "flows")


def updates(
    settings: Settings,
    identity: Identity | None,
    plane: DataPlane,
    neighbour: Neighbour,
    service: ServiceManager,
    now: Callable[[], Settings],
) -> tuple[UpdateMachine, Trust]:
    """What brings the device to the release that its channel offers, and who vouches for that."""
    try:
        store = UpdateStore(settings.data / "updates.db")
        vouching = trust(settings, identity, store, now)
        machine = UpdateMachine(
            update_settings(settings, identity),
            plane,
            store=store,
            trust=vouching,
            hold=neighbour.holds_updates,
            slow=service.starting,
        )
        return machine, vouching
    except (sqlite3.Error, OSError) as error:
        raise DataError(
            f"{settings.data / 'updates.db'} cannot be used: {error}; if it is damaged, move it away: the channel's "
            "release is then fetched again"
        ) from error


def trust(settings: Settings, identity: Identity | None, store: UpdateStore, now: Callable[[], Settings]) -> Trust:
    """Who vouches for what comes from the hub: the fleet's signed metadata, or nobody.

    Args:
        settings: what the agent is started with.
        identity: of this device; None: it is insecure, and believes whatever it can read.
        store: keeps versions of metadata.
        now: gives the settings as they are now.
    """
    if identity is None:
        return OpenTrust()
    if (anchor := Anchor.of(identity)) is None:
        return NoRoot()
    from edge_agent.trust.asking import Examiner
    from edge_agent.trust.signed import SignedTrust

    examiner = Examiner(anchor, settings.data / "trust")
    return SignedTrust(
        anchor,
        store,
        examiner,
        device=settings.device,
        hub=lambda: now().hub,
        grace_s=lambda: now().expiry_grace_s,
    )


def trials(
    settings: Settings,
    observing: Observing,
    plane: DataPlane,
    neighbour: Neighbour,
    machine: UpdateMachine,
    hub: Callable[[], str],
    report: Callable[[], None],
) -> Trials | None:
    """What measures candidates for the hub; None where the owner does not allow it, and then it is not imported."""
    if not settings.trials:
        return None
    from edge_agent.trials import Around, TrialRules, Trials
    from edge_agent.trials.rules import Doing

    return Trials(
        observing.store,
        Around(
            settings=lambda: machine.settings,
            rules=TrialRules(
                max_bytes=settings.trials_max_bytes,
                max_s=settings.trials_max_s,
                max_memory_bytes=settings.trials_max_memory_bytes,
                busy_per_s=settings.trials_busy_per_s,
            ),
            doing=lambda: Doing(machine.status().state, neighbour.strain.reason, 0.0),
            answered=lambda: sum(int(model["inference_count"]) for model in plane.statistics(None, None)),
            hub=hub,
            report=report,
        ),
    )


def shared_memory(settings: Settings) -> SharedMemory | None:
    """Regions that clients share with the agent; None where they may not."""
    if not settings.shared_memory:
        return None
    from edge_agent.serving.shared_memory import SharedMemory

    return SharedMemory(settings.shared_memory)


def local_package(settings: Settings, neighbour: Neighbour) -> Callable[[Path], LoadedRelease]:
    """Loads a folder of the device's own repository, as strictly as what comes from the hub."""
    # A folder of its own: what is measured of the hub's releases is removed with them.
    rules = replace(TestingRules.of(settings), data=settings.data / "repository")

    def load(folder: Path) -> LoadedRelease:
        if reason := neighbour.holds_updates(False):
            raise Refusal(f"no further model is loaded now: {reason}")
        try:
            audit_in_child(folder)
            return load_tested(folder, Index.of_folder(folder), rules).loaded
        except (PackageError, Refused) as error:
            raise Refusal(str(error)) from error

    return load


def strain_rules(settings: Settings) -> StrainRules:
    """When the agent holds back."""
    return StrainRules(settings.hot_celsius, settings.low_battery_percent, settings.max_memory_bytes)


def serving_rules(settings: Settings) -> ServingRules:
    """How requests are answered."""
    return ServingRules(
        deadline_s=settings.request_deadline_s,
        instances=settings.instances,
        most_waiting=settings.max_waiting,
        batches=BatchRules(settings.max_batch, settings.batch_delay_ms / 1e3, settings.preferred_batches),
        max_text_bytes=settings.max_text_bytes,
    )


def update_settings(settings: Settings, identity: Identity | None = None) -> UpdateSettings:
    """How releases are fetched, tested and watched."""
    return UpdateSettings(
        data=settings.data,
        device=settings.device,
        hub=settings.hub,
        limits=FetchLimits(
            max_release_bytes=settings.max_release_bytes,
            disk_reserve_bytes=settings.disk_reserve_bytes,
            disk_quota_bytes=settings.disk_quota_bytes,
            max_bytes_per_s=settings.max_fetch_bytes_per_s,
        ),
        tests=TestingRules.of(settings),
        probation=ProbationRules(
            seconds=settings.probation_s,
            min_predictions=settings.probation_min_predictions,
            max_seconds=settings.probation_max_s,
            max_error_share=settings.probation_max_error_share,
            max_slowdown=settings.probation_max_slowdown,
        ),
        crash_loop=CrashLoop(settings.crash_loop_ends, settings.crash_loop_s),
        models=settings.models,
        tls=None if identity is None else TlsOf(identity),
    )


def renewal(settings: Settings, identity: Identity | None) -> Renewal | None:
    """What renews this device's certificate; None for a device that has none."""
    if identity is None:
        return None
    from edge_agent.identity.renewal import Renewal

    def said(what: str, trouble: bool) -> None:
        (log.warning if trouble else log.info)(what)

    return Renewal(settings.data, said)
