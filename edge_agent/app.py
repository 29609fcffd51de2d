"""The composition root of the agent: the only place that picks adapters and joins the parts."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import os
import signal
import sqlite3
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

from edge_agent import logs
from edge_agent.logs import Log
from edge_agent.neighbour import Neighbour
from edge_agent.observing.assembly import Observing
from edge_agent.observing.store import StoreError
from edge_agent.operations import AgentOperations
from edge_agent.ports import LoadedRelease, MessagingState, Vitals
from edge_agent.reload import Reloaded, reloaded
from edge_agent.service import ServiceManager, attend
from edge_agent.serving.batching import BatchRules
from edge_agent.serving.dataplane import DataPlane, ServingRules
from edge_agent.serving.http import Door
from edge_agent.serving.repository import Refusal, Repository
from edge_agent.serving.responses import error_body
from edge_agent.serving.routes import Routes
from edge_agent.serving.unix_socket import clear, listening, permitting
from edge_agent.settings import Settings, SettingsError
from edge_agent.strain import Level, Strain, StrainRules
from edge_agent.updates import UpdateMachine, UpdateSettings
from edge_agent.updates.blobs import ReleaseFiles
from edge_agent.updates.disk import Disk
from edge_agent.updates.errors import Refused
from edge_agent.updates.fetch import FetchLimits
from edge_agent.updates.probation import ProbationRules
from edge_agent.updates.providers import report
from edge_agent.updates.rules import CrashLoop
from edge_agent.updates.testing import TestingRules, load_tested
from edgeloop.insights import InsightsError, Profile
from edgeloop.package import Index, Package, PackageError, audit_in_child
from edgeloop.runtime.memory import share_arenas

if TYPE_CHECKING:
    from edge_agent.flows.assembly import Flows
    from edge_agent.messaging import Messaging
    from edge_agent.serving.grpc.door import GrpcDoor
    from edge_agent.serving.shared_memory import SharedMemory

log = Log(__name__)

#: The line to the hub is made so long after the door is open: clients who wait for the first answers go first.
FIRST_ANSWERS_S = 0.1


class DataError(Exception):
    """The data folder cannot be used; the message says why."""


class AddressError(Exception):
    """A door cannot be opened; the message says why."""


class Agent:
    """All parts of one agent. `run` serves until it is told to stop."""

    def __init__(self, settings: Settings, reread: Callable[[], Settings] | None = None) -> None:
        """Make every part; nothing runs yet.

        Args:
            settings: what it is started with.
            reread: reads them again, for SIGHUP; None: they stay.

        Raises:
            DataError: the data folder cannot be used.
        """
        share_arenas()
        self._settings, self._reread = settings, reread or (lambda: settings)
        self._service = ServiceManager()
        self._asked_to_stop = threading.Event()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the door is open, what was read is new enough
        # From here on: a SIGTERM while the model is being loaded must not leave an unclean start behind either.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._asked_to_stop.set())
        self._lock = _lock(settings.data)
        # The store, the outbox and their sender are there without observing as well: reports go the same way.
        self._observing = _observing(settings, self._windows_closed)
        recorder = self._observing.recorder if settings.observe else None
        self._plane = DataPlane(recorder, id_prefix=os.urandom(6).hex(), rules=_serving_rules(settings))
        self._neighbour = Neighbour(_strain_rules(settings))
        self._updates = _updates(settings, self._plane, self._neighbour, self._service)
        self._messaging: Messaging | None = None
        self._repository = Repository(
            settings.model_repository,
            self._plane,
            _local_package(settings, self._neighbour),
            allowed=settings.repository_api,
        )
        self._flows = _flows(settings, self._plane)
        self._neighbour.watch(self._ease)
        operations = AgentOperations(
            settings,
            self._plane,
            self._updates,
            self._observing,
            self._messaging_state,
            self._flows,
            lambda: self._neighbour.strain.reason,
        )
        self._memory = _shared_memory(settings)
        # Clients get the repository only where they may change what it serves.
        repository = self._repository if settings.repository_api else None
        routes = Routes(self._plane, recorder, operations, repository, self._memory)
        self._grpc = self._make_grpc(repository, routes.extensions)
        self._door = Door(routes, error_body, settings.max_body_bytes)

    def run(self, announce: Callable[[str], None]) -> None:
        """Serve until SIGTERM or SIGINT, then stop in order: nothing that was answered is lost.

        Args:
            announce: gets the line that says where the agent serves.

        Raises:
            AddressError: a door cannot be opened.
        """
        timeout = self._settings.stop_timeout_s
        # What is said here is done at the end, from the last line to the first.
        with ExitStack() as at_the_end:
            at_the_end.callback(self._lock.close)
            at_the_end.callback(self._updates.close)
            at_the_end.callback(self._observing.stop, timeout / 2)
            self._observing.start()
            at_the_end.callback(self._neighbour.stop)
            self._neighbour.start()
            # What was committed serves before the door opens, and before anything is asked of the network.
            self._updates.start()
            self._repository.load_all()
            # No more updates, no more answers, the last windows closed and, if the broker is there, sent.
            at_the_end.callback(self._leave_hub, timeout / 2)
            at_the_end.callback(self._observing.recorder.flush)
            at_the_end.callback(self._plane.close, timeout / 2)
            at_the_end.callback(self._updates.stop, timeout / 2)
            if self._flows is not None:
                at_the_end.callback(self._flows.stop, timeout / 2)
                self._flows.start()
            _calm_collector()
            asyncio.run(self._serve(announce))

    async def _serve(self, announce: Callable[[str], None]) -> None:
        with ExitStack() as at_the_end:
            await self._serve_until_stopped(announce, await self._open_doors(at_the_end))

    async def _open_doors(self, at_the_end: ExitStack) -> list[str]:
        """Open every door; returns where they are."""
        host, port, path = self._settings.listen_host, self._settings.listen_port, self._settings.listen_socket
        try:
            server = await self._door.open(host, port)
        except OSError as error:
            raise AddressError(
                f"HTTP cannot be served on {host}:{port}: {error.strerror or error}; set listen_port to a free port"
            ) from error
        addresses = [f"http://{host}:{server.sockets[0].getsockname()[1]}/v2"]
        if path is not None:
            try:
                listener = at_the_end.enter_context(listening(path, int(self._settings.listen_socket_mode, 8)))
                await self._door.open_at(listener)
            except OSError as error:
                raise AddressError(
                    f"HTTP cannot be served at {path} (listen_socket): {error.strerror or error}"
                ) from error
            addresses.append(str(path))
        if self._grpc is not None:
            addresses += self._open_grpc(self._grpc)
        return addresses

    async def _serve_until_stopped(self, announce: Callable[[str], None], addresses: list[str]) -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        if self._asked_to_stop.is_set():
            stop.set()
        announce(f"edge-agent {self._settings.device} serves {' and '.join(addresses)}")
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload)
        self._service.ready()
        pulses = (self._observing.recorder.pulse, self._updates.pulse)
        attending = asyncio.create_task(attend(self._service, self._status_line, pulses), name="service manager")
        joining = asyncio.create_task(self._join_hub(), name="joining the hub")
        joining.add_done_callback(lambda task: stop.set() if task.cancelled() or task.exception() else None)
        await stop.wait()
        self._service.stopping()
        attending.cancel()
        log.info("stopping")
        grace_s = self._settings.stop_timeout_s / 2
        closing = [] if self._grpc is None else [asyncio.to_thread(self._grpc.close, grace_s)]
        await asyncio.gather(self._door.drain(grace_s), *closing)
        await joining  # it has ended long ago, unless we are stopped at once; what it raised ends the agent
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            asyncio.get_running_loop().remove_signal_handler(number)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is obeyed already; Ctrl-C twice still ends at once

    def _ease(self, strain: Strain) -> None:
        self._plane.ease(strain.level >= Level.GENTLE)
        if self._flows is not None:
            self._flows.ease(strain.level >= Level.MINIMAL)

    def _status_line(self) -> str:
        at = self._updates.status()
        return f"{'serves' if self._plane.ready() else 'serves nothing'}; {at.state}: {at.reason}"

    def _reload(self) -> None:
        """Read the settings again, and go on with those that may change while it runs."""
        self._service.reloading()
        try:
            new = self._reread()
        except SettingsError as error:
            log.error("the settings are wrong; nothing has changed", reason=str(error))
        else:
            self._use(reloaded(self._settings, new))
        self._service.ready()

    def _use(self, found: Reloaded) -> None:
        self._settings = settings = found.settings
        logs.configure(settings.log_level, settings.log_format)
        self._updates.use(_update_settings(settings))
        self._neighbour.use(_strain_rules(settings))
        if self._messaging is not None:
            self._messaging.use(settings.channel, settings.report_s)
        log.info("settings were read again", changed=", ".join(found.changed) or "nothing")
        if found.need_restart:
            log.warning("some settings need a restart to change", settings=", ".join(found.need_restart))

    def _make_grpc(self, repository: Repository | None, extensions: tuple[str, ...]) -> GrpcDoor | None:
        """The second door, whose library only an agent pays for that opens it."""
        if self._settings.grpc_port is None and self._settings.grpc_socket is None:
            return None
        from edge_agent.serving.grpc.door import GrpcDoor
        from edge_agent.serving.grpc.service import Service

        service = Service(self._plane, repository, self._memory, extensions)
        return GrpcDoor(service, self._settings.max_body_bytes)

    def _open_grpc(self, door: GrpcDoor) -> list[str]:
        settings, addresses = self._settings, []
        if settings.grpc_port is not None:
            host = f"[{settings.listen_host}]" if ":" in settings.listen_host else settings.listen_host
            addresses.append(f"{host}:{settings.grpc_port}")
        if (path := settings.grpc_socket) is not None:
            addresses.append(f"unix:{path}")
        try:
            if path is not None:
                clear(path)
            with permitting(int(settings.listen_socket_mode, 8)):
                port = door.open(*addresses)[0]
        except OSError as error:
            raise AddressError(
                f"gRPC cannot be served: {error.strerror or error}; set grpc_port to a free port, or grpc_socket to a "
                "path that nobody listens at"
            ) from error
        if settings.grpc_port is not None:
            addresses[0] = f"grpc://{host}:{port}"
        return addresses

    async def _join_hub(self) -> None:
        """Connect to the hub, once the first answers are given: nobody waits for an MQTT client to be imported."""
        await asyncio.sleep(FIRST_ANSWERS_S)
        await asyncio.to_thread(self._connect)

    def _connect(self) -> None:
        from edge_agent.hub_line import hub_line

        messaging = hub_line(self._settings, self._observing, self._vitals)
        self._updates.report_to(messaging)
        messaging.start(self._updates)
        self._messaging = messaging

    def _leave_hub(self, timeout_s: float) -> None:
        if self._messaging is not None:
            self._messaging.stop(timeout_s)

    def _messaging_state(self) -> MessagingState:
        if self._messaging is not None:
            return self._messaging.state()
        settings = self._settings
        return MessagingState(f"{settings.broker_host}:{settings.broker_port}", settings.channel)

    def _windows_closed(self) -> None:
        if self._messaging is not None:
            self._messaging.windows_closed()

    def _vitals(self) -> Vitals:
        loaded = self._plane.loaded
        health = {
            "providers": report(
                self._settings.data,
                None if loaded is None else loaded.digest,
                self._settings.required_providers,
                self._updates.provider_trouble,
            ),
            "last_update_bytes": self._updates.last_update_bytes,
            "strain": self._neighbour.strain.reason,
        }
        if loaded is None:
            return Vitals(health=health)
        session = loaded.session
        return Vitals(session.variant, session.provider, dict(session.placement), health)


def _calm_collector() -> None:
    """Let the garbage collector look less often, and never at what was made before serving began.

    Requests wait by the hundred until they are counted, which the collector takes for growth: at its defaults it cost
    3 µs a request. Reference counting frees what they hold. It has rested since the command began: what is imported
    stays, and of 67,000 objects it would have freed 600.
    """
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    gc.enable()


def _lock(data: Path) -> IO[str]:
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


def _observing(settings: Settings, closed: Callable[[], None]) -> Observing:
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
            profile_of=profile_of,
            closed=closed,
        )
    except StoreError as error:
        raise DataError(str(error)) from error


def _flows(settings: Settings, plane: DataPlane) -> Flows | None:
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


def _updates(settings: Settings, plane: DataPlane, neighbour: Neighbour, service: ServiceManager) -> UpdateMachine:
    try:
        return UpdateMachine(_update_settings(settings), plane, hold=neighbour.holds_updates, slow=service.starting)
    except (sqlite3.Error, OSError) as error:
        raise DataError(
            f"{settings.data / 'updates.db'} cannot be used: {error}; if it is damaged, move it away: the channel's "
            "release is then fetched again"
        ) from error


def _shared_memory(settings: Settings) -> SharedMemory | None:
    if not settings.shared_memory:
        return None
    from edge_agent.serving.shared_memory import SharedMemory

    return SharedMemory(settings.shared_memory)


def _local_package(settings: Settings, neighbour: Neighbour) -> Callable[[Path], LoadedRelease]:
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


def _strain_rules(settings: Settings) -> StrainRules:
    return StrainRules(settings.hot_celsius, settings.low_battery_percent, settings.max_memory_bytes)


def _serving_rules(settings: Settings) -> ServingRules:
    return ServingRules(
        deadline_s=settings.request_deadline_s,
        instances=settings.instances,
        most_waiting=settings.max_waiting,
        batches=BatchRules(settings.max_batch, settings.batch_delay_ms / 1e3, settings.preferred_batches),
    )


def _update_settings(settings: Settings) -> UpdateSettings:
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
    )
