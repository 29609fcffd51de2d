"""The composition root of the agent: the only place that picks adapters and joins the parts."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from edge_agent import logs, parts
from edge_agent.doors import Doors
from edge_agent.identity import Identity
from edge_agent.logs import Log
from edge_agent.neighbour import Neighbour
from edge_agent.operations import AgentOperations
from edge_agent.ports import MessagingState, Vitals
from edge_agent.reload import Reloaded, reloaded
from edge_agent.service import ServiceManager, attend
from edge_agent.serving.dataplane import DataPlane
from edge_agent.serving.repository import Repository
from edge_agent.settings import Settings, SettingsError
from edge_agent.strain import Level, Strain
from edge_agent.updates.providers import report
from edgeloop.runtime.memory import share_arenas

if TYPE_CHECKING:
    from edge_agent.identity.renewal import Renewal
    from edge_agent.messaging import Messaging
    from edge_agent.trials import Trials

log = Log(__name__)

#: The line to the hub is made so long after the door is open: clients who wait for the first answers go first.
FIRST_ANSWERS_S = 0.3


class Agent:
    """All parts of one agent. `run` serves until it is told to stop."""

    def __init__(
        self,
        settings: Settings,
        reread: Callable[[], Settings] | None = None,
        identity: Identity | None = None,
    ) -> None:
        """Make every part; nothing runs yet.

        Args:
            settings: what it is started with.
            reread: reads them again, for SIGHUP; None: they stay.
            identity: of this device; None for one that is not enrolled.

        Raises:
            parts.DataError: the data folder cannot be used.
        """
        share_arenas()
        self._settings, self._reread, self._identity = settings, reread or (lambda: settings), identity
        self._service = ServiceManager()
        self._asked_to_stop = threading.Event()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until the door is open, what was read is new enough
        # From here on: a SIGTERM while the model is being loaded must not leave an unclean start behind either.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._asked_to_stop.set())
        self._lock = parts.lock(settings.data)
        # The store, the outbox and their sender are there without observing as well: reports go the same way.
        self._observing = parts.observing(settings, self._windows_closed)
        recorder = self._observing.recorder if settings.observe else None
        self._plane = DataPlane(recorder, id_prefix=os.urandom(6).hex(), rules=parts.serving_rules(settings))
        self._samples = parts.samples(settings, self._observing, self._plane, lambda: self._messaging_state().channel)
        self._escalator = parts.escalating(settings, self._observing)
        if self._escalator is not None:
            self._plane.escalate(self._escalator)
        self._neighbour = Neighbour(parts.strain_rules(settings))
        self._updates, self._trust = parts.updates(
            settings, identity, self._plane, self._neighbour, self._service, lambda: self._settings
        )
        self._renewal: Renewal | None = None
        self._messaging: Messaging | None = None
        self._trials: Trials | None = None
        self._repository = Repository(
            settings.model_repository,
            self._plane,
            parts.local_package(settings, self._neighbour),
            allowed=settings.repository_api,
        )
        self._flows = parts.flows(settings, self._plane)
        self._neighbour.watch(self._ease)
        operations = AgentOperations(
            settings,
            self._plane,
            self._updates,
            self._observing,
            self._samples,
            self._messaging_state,
            self._flows,
            lambda: self._neighbour.strain.reason,
            self._trust.state,
            parts.operator_key(settings.data),
            self._escalator,
        )
        # Clients get the repository only where they may change what it serves.
        repository = self._repository if settings.repository_api else None
        memory = parts.shared_memory(settings)
        self._doors = Doors(settings, self._plane, recorder, operations, repository, memory)

    def run(self, announce: Callable[[str], None]) -> None:
        """Serve until SIGTERM or SIGINT, then stop in order: nothing that was answered is lost.

        Args:
            announce: gets the line that says where the agent serves.

        Raises:
            doors.AddressError: a door cannot be opened.
        """
        timeout = self._settings.stop_timeout_s
        # What is said here is done at the end, from the last line to the first.
        with ExitStack() as at_the_end:
            at_the_end.callback(self._lock.close)
            at_the_end.callback(self._updates.close)
            at_the_end.callback(self._observing.stop, timeout / 2)
            self._observing.start()
            at_the_end.callback(self._samples.stop, timeout / 2)
            self._samples.start()
            at_the_end.callback(self._neighbour.stop)
            self._neighbour.start()
            # What was committed serves before the door opens, and before anything is asked of the network.
            self._updates.start()
            self._repository.load_all()
            # No more updates, no more answers, the last windows closed and, if the broker is there, sent.
            at_the_end.callback(self._leave_hub, timeout / 2)
            at_the_end.callback(self._observing.recorder.flush)
            if self._escalator is not None:
                at_the_end.callback(self._escalator.stop, timeout / 4)
                self._escalator.start()
            at_the_end.callback(self._plane.close, timeout / 2)
            at_the_end.callback(self._updates.stop, timeout / 2)
            at_the_end.callback(self._trust.stop, timeout / 4)
            if self._flows is not None:
                at_the_end.callback(self._flows.stop, timeout / 2)
                self._flows.start()
            _calm_collector()
            asyncio.run(self._serve(announce))

    async def _serve(self, announce: Callable[[str], None]) -> None:
        with ExitStack() as at_the_end:
            await self._serve_until_stopped(announce, await self._doors.open(at_the_end))

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
        if self._escalator is not None:
            self._escalator.let_go()
        await self._doors.close(grace_s)
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
        self._updates.use(parts.update_settings(settings, self._identity))
        self._neighbour.use(parts.strain_rules(settings))
        self._observing.policy.limit(parts.limits(settings))
        self._observing.pace.use(parts.replay_rules(settings))
        self._samples.policy.limit(parts.samples_limits(settings))
        if self._escalator is not None:
            self._escalator.policy.limit(parts.escalation_limits(settings))
        if self._messaging is not None:
            self._messaging.use(settings.channel, settings.report_s)
        log.info("settings were read again", changed=", ".join(found.changed) or "nothing")
        if found.need_restart:
            log.warning("some settings need a restart to change", settings=", ".join(found.need_restart))

    async def _join_hub(self) -> None:
        """Connect to the hub, once the first answers are given: nobody waits for an MQTT client to be imported."""
        await asyncio.sleep(FIRST_ANSWERS_S)
        await asyncio.to_thread(self._connect)

    def _connect(self) -> None:
        from edge_agent.hub_line import hub_line

        messaging = hub_line(
            self._settings,
            self._identity,
            self._observing,
            self._samples,
            self._trust,
            self._vitals,
            lambda: self._settings.hub,
            self._escalator,
            self._make_trials,
        )
        self._updates.report_to(messaging)
        messaging.start(self._updates)
        self._messaging = messaging
        self._renewal = parts.renewal(self._settings, self._identity)
        if self._renewal is not None:
            self._renewal.start()

    def _make_trials(self, hub: Callable[[], str], report: Callable[[], None]) -> Trials | None:
        self._trials = parts.trials(
            self._settings, self._observing, self._plane, self._neighbour, self._updates, hub, report
        )
        return self._trials

    def _leave_hub(self, timeout_s: float) -> None:
        if self._trials is not None:
            self._trials.stop(timeout_s)
        if self._renewal is not None:
            self._renewal.stop()
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
            "clock": self._observing.clocks.trouble(),
            "certificate": "" if self._renewal is None else self._renewal.trouble,
            "insights_bytes_today": self._observing.budget.today,
        }
        if loaded is None:
            return Vitals(health=health)
        from edgeloop.runtime import runtime_version  # it is there, since a model is loaded

        health["runtime"] = runtime_version()
        session = loaded.session
        placement = dict(session.placement)
        return Vitals(session.variant, session.provider, placement, health, self._observing.told_alarms)


def _calm_collector() -> None:
    """Let the garbage collector look less often, and never at what was made before serving began.

    Requests wait by the hundred until they are counted, which the collector takes for growth: at its defaults it cost
    3 µs a request. Reference counting frees what they hold. It has rested since the command began: what is imported
    stays, and of 67,000 objects it would have freed 600.
    """
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    gc.enable()
