"""paho-mqtt's client as a connection uses it: on a :class:`Wire`, and made of what a link is given."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

from paho.mqtt.client import Client, MQTTv5, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edgeloop.protocol.wire import Received, Wire
from edgeloop.records import dataclass

# A broker that takes the TCP connection and never answers must not hold the link for ever.
CONNECT_TIMEOUT_S = 10.0
#: OpenSSL's X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED.
_NOT_NOW = (9, 10)


@dataclass(frozen=True)
class Options:
    """What every connection of a link has in common; see :class:`edgeloop.protocol.link.Link`."""

    host: str
    port: int
    client_id: str
    will: tuple[str, bytes] | None
    username: str | None
    password: str | None
    tls: ssl.SSLContext | Callable[[], ssl.SSLContext] | None
    keepalive_s: int
    max_queued: int
    max_queued_bytes: int
    max_packet_bytes: int
    manual_ack: bool
    session_s: int = 0
    receive_maximum: int = 0
    gather_s: float = 0.0


class WiredClient(Client):
    """A paho client whose socket is a :class:`Wire`. It drives no loop of its own."""

    wire: Wire | None = None

    def __init__(self, options: Options, version: int, received: Received) -> None:
        """Prepare; nothing is connected yet.

        Args:
            options: the link's.
            version: of MQTT, 5 or 4.
            received: told of each message that the wire reads.
        """
        super().__init__(
            CallbackAPIVersion.VERSION2,
            options.client_id,
            # On 3.1.1 a session that is kept has no end; on 5 the connect's properties say.
            clean_session=None if version == 5 else options.session_s == 0,
            protocol=MQTTv5 if version == 5 else MQTTv311,
            reconnect_on_failure=False,
            manual_ack=options.manual_ack,
        )
        self._given, self._on_version, self._on_received = options, version, received
        self.connect_timeout = CONNECT_TIMEOUT_S
        self.max_queued_messages_set(options.max_queued)
        # With this callback set, paho leaves all writing to whoever drives the loop.
        self.on_socket_register_write = lambda *_: None
        if options.username is not None:
            self.username_pw_set(options.username, options.password)
        if options.will is not None:
            topic, payload = options.will
            self.will_set(topic, payload, qos=1, retain=True)

    def open(self) -> None:
        """Connect, and send what MQTT begins with.

        Raises:
            OSError: nobody is there.
            ValueError: there can be no TLS.
        """
        options = self._given
        if options.tls is not None:
            self.tls_set_context(_context(options.tls))
        self.connect(options.host, options.port, options.keepalive_s, **self._hello())

    def _hello(self) -> dict[str, Any]:
        options = self._given
        if self._on_version != 5:
            return {}
        properties: Any = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho left it untyped
        # A larger message is then dropped by the broker, before it costs memory here.
        properties.MaximumPacketSize = options.max_packet_bytes
        if options.receive_maximum:
            properties.ReceiveMaximum = options.receive_maximum
        if options.session_s:
            properties.SessionExpiryInterval = options.session_s
        return {"clean_start": options.session_s == 0, "properties": properties}

    def _create_socket(self) -> Any:
        sock: socket.socket = super()._create_socket()  # type: ignore[assignment]  # TCP or TLS: no websockets here
        # A wire writes all that it has at once. What it has next, such as an answer after an acknowledgement, would
        # wait 40 ms for the other side's own acknowledgement of TCP.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        properties, most = self._on_version == 5, self._given.max_packet_bytes
        self.wire = Wire(sock, self._on_received, properties=properties, max_packet_bytes=most)
        return self.wire


def why(error: Exception) -> str:
    """What an error says; where a certificate does not hold now, the clock as well: it is the likelier culprit."""
    if isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in _NOT_NOW:
        clock = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
        return f"{error}; the clock here says {clock}: see whether it is right"
    return str(error)


def _context(tls: ssl.SSLContext | Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    try:
        return tls if isinstance(tls, ssl.SSLContext) else tls()
    except Exception as error:  # whatever it is, the next attempt may find it mended
        raise ValueError(f"there can be no TLS: {error}") from error
