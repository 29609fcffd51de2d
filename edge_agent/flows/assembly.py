"""All flows of an agent: made from the settings, started and stopped in order, counted.

Sinks begin before sources, and end after them; what each kind needs is imported when there is one of that kind.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from edge_agent.flow_settings import (
    CameraSourceSettings,
    FolderSourceSettings,
    JsonlSinkSettings,
    MqttSinkSettings,
    MqttSourceSettings,
    ReplaySourceSettings,
    SinkSettings,
    SourceSettings,
    WebhookSinkSettings,
)
from edge_agent.flows.backoff import Backoff
from edge_agent.flows.brokers import Device, open_link
from edge_agent.flows.flow import Flow, FlowSettings
from edge_agent.flows.ports import Sink, Source, Trouble
from edge_agent.logs import Log
from edge_agent.metrics import Metric
from edge_agent.serving.dataplane import DataPlane
from edge_agent.serving.parameters import NO_PARAMETERS

log = Log(__name__)

#: Between two tries to start a sink that cannot work: the first bound and the last, seconds.
SINK_BACKOFF_S = (0.5, 30.0)
#: Count → what it means. Each is a metric, ``edge_agent_source_<count>_total`` or ``edge_agent_sink_<count>_total``.
SOURCE_COUNTS = {
    "taken": "Items that a source gave.",
    "answered": "Items whose results all sinks have.",
    "rejected": "Items that were no input.",
    "dropped": "Items that were given up for newer ones, or since too much waited.",
    "failures": "Tries of an item that had no answer through the model's fault.",
    "waits": "Waits, since nothing served yet or callers came first.",
    "reopened": "Times that a source had to be opened anew.",
}
#: A device under strain takes two items a second of each source.
GENTLE_PAUSE_S = 0.5
SINK_COUNTS = {
    "accepted": "Results that a sink answers for.",
    "delivered": "Results that its other side has.",
    "failures": "Tries that did not deliver.",
    "refused": "Results that the other side will never take.",
    "dropped": "Results that were given up since too much waited.",
}


class Flows:
    """Implements what `edge_agent.app` and `edge_agent.operations` need of flows.

    Args:
        sources: settings, held to one another by `check_flows`.
        sinks: settings.
        plane: who answers.
        device: who this agent is.
        state: folder for what has to outlive the agent.
    """

    def __init__(
        self,
        sources: Sequence[SourceSettings],
        sinks: Sequence[SinkSettings],
        plane: DataPlane,
        device: Device,
        state: Path,
    ) -> None:
        users = {sink.name: [s.name for s in sources if sink.name in s.sinks] for sink in sinks}
        self._sinks = {sink.name: make_sink(sink, users[sink.name], device, state / "sinks") for sink in sinks}
        self._flows = [
            Flow(
                FlowSettings(source.name, source.model, source.outputs, source.parameters or NO_PARAMETERS),
                make_source(source, device, state / "sources"),
                [self._sinks[name] for name in source.sinks],
                plane,
            )
            for source in sources
        ]
        self._not_started: dict[str, str] = {}
        self._stopping = threading.Event()
        self._starter = threading.Thread(target=self._start, name="flows", daemon=True)

    def start(self) -> None:
        """Begin to listen; returns at once."""
        self._starter.start()

    def ease(self, gently: bool) -> None:
        """Take items slowly, since the device is under strain; or as they come again."""
        for flow in self._flows:
            flow.pause_s = GENTLE_PAUSE_S if gently else 0.0

    def stop(self, timeout_s: float) -> None:
        """Take nothing more, give what is under way to the sinks, and end them; within about ``timeout_s`` seconds."""
        until = time.monotonic() + timeout_s
        self._stopping.set()
        for flow in self._flows:
            flow.ask_to_stop()
        self._starter.join(timeout_s / 4)
        for flow in self._flows:
            flow.join(max(until - timeout_s / 2 - time.monotonic(), 0.05))
        for sink in self._sinks.values():
            sink.stop(max(until - time.monotonic(), 0.2) / len(self._sinks))

    def status(self) -> dict[str, Any]:
        """What the status document shows: ``sources`` and ``sinks``."""
        return {
            "sources": [flow.status() for flow in self._flows],
            "sinks": [
                {
                    "name": name,
                    "trouble": self._not_started.get(name) or sink.trouble,
                    "counts": dict(sink.counts()),
                }
                for name, sink in self._sinks.items()
            ],
        }

    def metrics(self) -> Iterator[Metric]:
        """Every count of every source and sink; those of one name follow one another."""
        sources = [(flow.settings.name, flow.status()["counts"]) for flow in self._flows]
        sinks = [(name, sink.counts()) for name, sink in self._sinks.items()]
        for kind, known, counted in (("source", SOURCE_COUNTS, sources), ("sink", SINK_COUNTS, sinks)):
            for count, text in known.items():
                for name, counts in counted:
                    yield Metric(f"{kind}_{count}_total", text, counts.get(count, 0), {kind: name})
        for count, text in (("waiting", "Results that wait to be delivered."), ("waiting_bytes", "Their size.")):
            for name, counts in sinks:
                yield Metric(f"sink_{count}", text, counts.get(count, 0), {"sink": name})

    def _start(self) -> None:
        """Start the sinks, however long each takes to be possible; then each source whose sinks are all there."""
        waiting, backoff = list(self._flows), Backoff(*SINK_BACKOFF_S)
        unstarted = dict(self._sinks)
        while not self._stopping.is_set():
            for name, sink in list(unstarted.items()):
                try:
                    sink.start()
                except Trouble as error:
                    if self._not_started.get(name) != str(error):
                        log.warning("a sink cannot start; it is tried again", sink=name, reason=str(error))
                    self._not_started[name] = str(error)
                except Exception as error:
                    log.exception("a sink failed in an unforeseen way; it is tried again", sink=name)
                    self._not_started[name] = f"an unforeseen error, see the log: {error}"
                else:
                    self._not_started.pop(name, None)
                    del unstarted[name]
            for flow in [flow for flow in waiting if not flow.needs(unstarted)]:
                if not self._stopping.is_set():
                    flow.start()
                waiting.remove(flow)
            if not unstarted:
                return
            self._stopping.wait(backoff.next())


def make_source(settings: SourceSettings, device: Device, state: Path) -> Source:
    """The source that settings describe.

    Args:
        settings: of one kind.
        device: who this agent is.
        state: folder of all sources' state.
    """
    folder = state / settings.name
    match settings:
        case MqttSourceSettings():
            from edge_agent.flows.sources.mqtt import MqttSource

            return MqttSource(settings, folder, partial(open_link, device, settings.broker, f"source-{settings.name}"))
        case FolderSourceSettings():
            from edge_agent.flows.sources.folder import FolderSource

            return FolderSource(settings, folder)
        case ReplaySourceSettings():
            from edge_agent.flows.sources.replay import ReplaySource

            return ReplaySource(settings, folder)
        case CameraSourceSettings():
            from edge_agent.flows.sources.camera import CameraSource

            return CameraSource(settings)
    raise TypeError(f"no source is made of {type(settings).__name__}")


def make_sink(settings: SinkSettings, sources: Sequence[str], device: Device, state: Path) -> Sink:
    """The sink that settings describe.

    Args:
        settings: of one kind.
        sources: names of its sources.
        device: who this agent is.
        state: folder of all sinks' state.
    """
    folder = state / settings.name
    match settings:
        case JsonlSinkSettings():
            from edge_agent.flows.sinks.jsonl import JsonlSink

            return JsonlSink(settings)
        case MqttSinkSettings():
            from edge_agent.flows.sinks.mqtt import MqttPublisher
            from edge_agent.flows.sinks.spooled import SpooledSink

            link = partial(open_link, device, settings.broker, f"sink-{settings.name}")
            return SpooledSink(settings, folder, MqttPublisher(settings, device, sources, link))
        case WebhookSinkSettings():
            from edge_agent.flows.sinks.spooled import SpooledSink
            from edge_agent.flows.sinks.webhook import Webhook

            return SpooledSink(settings, folder, Webhook(settings))
    raise TypeError(f"no sink is made of {type(settings).__name__}")
