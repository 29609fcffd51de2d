"""HTTPS: the protocol of uvicorn, with the client's certificate in each request's scope (ASGI's TLS extension)."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

from cryptography import x509
from uvicorn.protocols.http.auto import AutoHTTPProtocol

#: How long a client has to answer the goodbye of a hub that stops, seconds.
GOODBYE_S = 0.3


class TlsProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]  # which of the two it is depends on what is installed
    """One connection; requests on it have ``scope["extensions"]["tls"]["client_cert_chain"]``, a list of PEM.

    The list is empty for a client that shows none. A certificate in it is one of the fleet's authority, and its owner
    has its key; whether it still holds is for `cloud_hub.identity.registry.Registry.recognise` to say.
    """

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note who is there."""
        super().connection_made(transport)
        serves: Any = self.app  # type: ignore[has-type]  # uvicorn leaves its protocols partly untyped
        connection = transport.get_extra_info("ssl_object")
        shown = None if connection is None else connection.getpeercert(binary_form=True)
        chain = [] if shown is None else [ssl.DER_cert_to_PEM_cert(shown)]
        name = None if shown is None else x509.load_der_x509_certificate(shown).subject.rfc4514_string()

        async def with_tls(scope: Any, receive: Any, send: Any) -> None:
            extensions = {
                **(scope.get("extensions") or {}),
                "tls": {"server_cert": None, "client_cert_chain": chain, "client_cert_name": name},
            }
            await serves({**scope, "extensions": extensions}, receive, send)

        self.app = with_tls

    def shutdown(self) -> None:
        """End the connection when its request is answered.

        TLS says goodbye and waits for the other side to do so too, which a client that rests does not: the hub's stop
        would take as long as it may take at most.
        """
        super().shutdown()
        if self.transport.is_closing():
            self.loop.call_later(GOODBYE_S, self.transport.abort)


def client_certificate(scope: Any) -> bytes | None:
    """The certificate that the client of a request has shown, DER, or None."""
    chain = ((scope.get("extensions") or {}).get("tls") or {}).get("client_cert_chain")
    return ssl.PEM_cert_to_DER_cert(chain[0]) if chain else None
