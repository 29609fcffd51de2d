"""An MQTT client that does what it likes: any topic, any will, any client id, with whatever certificate it has."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

from paho.mqtt.client import Client, MQTTMessage, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

WAIT_S = 20.0


class MqttAttacker:
    """One connection; what is delivered to it is in ``received``, as (topic, payload)."""

    def __init__(
        self,
        port: int,
        context: ssl.SSLContext,
        version: int,
        *,
        client_id: str = "",
        username: str | None = None,
        will: tuple[str, bytes] | None = None,
        keeps_session: bool = False,
    ) -> None:
        self.received: list[tuple[str, bytes]] = []
        self.connected = self.ended = False
        self._port, self._five, self._keeps = port, version == MQTTv5, keeps_session
        clean = None if self._five else not keeps_session
        self.client = Client(
            CallbackAPIVersion.VERSION2,
            client_id or f"attacker-{time.monotonic_ns()}",
            clean_session=clean,
            protocol=version,
            reconnect_on_failure=False,
        )
        self.client.tls_set_context(context)
        if username is not None:
            self.client.username_pw_set(username, "")
        if will is not None:
            self.client.will_set(*will, qos=1, retain=True)
        self.client.on_connect = self._on_connect
        self.client.on_disconnect = self._on_disconnect
        self.client.on_message = self._on_message

    def connect(self) -> MqttAttacker:
        """Connect; raises AssertionError when the broker does not take it."""
        self.try_to_connect()
        assert self.connected, "the broker refused the connection"
        return self

    def try_to_connect(self) -> bool:
        """Whether the broker takes the connection."""
        more: dict[str, Any] = {}
        if self._five:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 3600 if self._keeps else 0
            more = {"clean_start": not self._keeps, "properties": properties}
        try:
            self.client.connect("127.0.0.1", self._port, 30, **more)
        except OSError:  # TLS says no at once, or with the first byte
            self.ended = True
            return False
        self.client.loop_start()
        wait_until(lambda: self.connected or self.ended)
        return self.connected

    def subscribe(self, *filters: str) -> None:
        """Ask for topics, and wait for the broker's answer, whatever it is."""
        answers: list[int] = []
        self.client.on_subscribe = lambda _c, _d, mid, _r, _p: answers.append(mid)
        for one in filters:
            _, mid = self.client.subscribe(one, qos=1)
            wait_until(lambda mid=mid: mid in answers or self.ended)  # type: ignore[misc]

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        """Send; what the broker answers says nothing about who gets it."""
        self.client.publish(topic, payload, qos, retain)

    def vanish(self) -> None:
        """Lose the connection without a goodbye: the broker publishes the will."""
        sock: Any = self.client.socket()
        sock.shutdown(socket.SHUT_RDWR)
        wait_until(lambda: self.ended)
        self.client.loop_stop()

    def close(self) -> None:
        """Say goodbye."""
        with contextlib.suppress(Exception):
            self.client.disconnect()
        self.client.loop_stop()

    def got(self, payload: bytes) -> bool:
        """Whether something with this payload was delivered."""
        return any(body == payload for _, body in self.received)

    def wait_for(self, payload: bytes) -> None:
        """Until something with this payload was delivered."""
        wait_until(lambda: self.got(payload))

    def _on_connect(self, _client: Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        self.connected = not reason.is_failure
        self.ended = reason.is_failure

    def _on_disconnect(self, *_: Any) -> None:
        self.ended = True

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        self.received.append((message.topic, bytes(message.payload)))


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait, and fail when it does not come."""
    until = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < until, f"waited {WAIT_S:.0f} s"
        time.sleep(0.01)
