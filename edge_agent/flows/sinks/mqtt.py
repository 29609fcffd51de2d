"""An MQTT topic: results as JSON at QoS 1, and Home Assistant told of them.

A result counts as delivered when the broker has acknowledged it; what becomes of it there is the broker's. A broker
that took one while the connection broke gets it twice, under the same id.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edge_agent.flow_settings import MqttSinkSettings
from edge_agent.flows import homeassistant
from edge_agent.flows.brokers import Device
from edge_agent.flows.ports import Result
from edge_agent.flows.sinks.spooled import Refused, Undelivered
from edgeloop.protocol.link import Link

CONFIRM_S = 10.0
#: Beside topic and payload, a packet has a few numbers.
_PACKET_MARGIN = 64


class MqttPublisher:
    """Implements `edge_agent.flows.sinks.spooled.Carrier`.

    Args:
        settings: see docs/reference/flows.md.
        device: who publishes.
        sources: names of the sources whose results come here.
        link: makes a link that is not started, with these options of `Link`.
    """

    def __init__(
        self, settings: MqttSinkSettings, device: Device, sources: Sequence[str], link: Callable[..., Link]
    ) -> None:
        self._settings, self._device, self._sources, self._make_link = settings, device, tuple(sources), link
        self._link: Link | None = None
        self._availability = ""
        if settings.home_assistant is not None:
            self._availability = homeassistant.availability_topic(settings.home_assistant, device, settings.name)

    def open(self, wake: Callable[[], None]) -> None:
        """Connect, in the link's own thread."""
        will = (self._availability, homeassistant.OFFLINE) if self._availability else None
        self._link = self._make_link(will=will, max_queued_bytes=256 << 20)
        self._link.on_connect(self._announce)
        self._link.on_connect(wake)
        self._link.start()

    def deliver(self, result: Result) -> None:
        """Publish, and wait for the broker's word."""
        link = self._link
        if link is None or not link.connected:
            raise Undelivered("no broker" if link is None else f"no broker at {link.address}: {link.last_error}")
        topic = self.topic(result.source)
        size = len(topic.encode()) + len(result.document) + _PACKET_MARGIN
        if 0 < link.packet_limit < size:
            raise Refused(f"{link.address} takes packets of {link.packet_limit} bytes; this is one of {size}")
        if not link.confirm(topic, result.document, retain=self._settings.retain, timeout_s=CONFIRM_S):
            raise Undelivered(f"{link.address} has not taken a message on {topic}")

    def close(self, timeout_s: float) -> None:
        """Say that the sensors are away, and goodbye."""
        if self._link is not None:
            if self._availability:
                self._link.publish(self._availability, homeassistant.OFFLINE, retain=True)
            self._link.stop(timeout_s)

    def topic(self, source: str) -> str:
        """Where a source's results go."""
        return self._settings.topic.replace("{device}", self._device.name).replace("{source}", source)

    def _announce(self) -> None:
        settings = self._settings.home_assistant
        if settings is None or self._link is None:
            return
        for source in self._sources:
            topic = homeassistant.config_topic(settings, self._device, self._settings.name, source)
            document = homeassistant.config(settings, self._device, self._settings.name, source, self.topic(source))
            self._link.publish(topic, document, retain=True)
        self._link.publish(self._availability, homeassistant.ONLINE, retain=True)
