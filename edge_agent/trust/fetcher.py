"""Where metadata comes from: what the message carried, then the hub, within bounds of bytes and time.

Runs in the child alone: python-tuf is imported with it.
"""

from __future__ import annotations

import http.client
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from http import HTTPStatus
from urllib.parse import unquote

from tuf.api.exceptions import DownloadError, DownloadHTTPError, SlowRetrievalError
from tuf.ngclient import FetcherInterface

from edgeloop.records import dataclass
from edgeloop.trust.names import ROOT, TIMESTAMP

CHUNK_BYTES = 16_384


@dataclass(frozen=True)
class Limits:
    """Bounds of fetching metadata; python-tuf has those of bytes.

    Attributes:
        all_s: seconds for everything.
        file_s: seconds for a file.
        silence_s: seconds for connecting, and for each wait for bytes.
        tries: connections for a file.
    """

    all_s: float = 60.0
    file_s: float = 30.0
    silence_s: float = 15.0
    tries: int = 3


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Metadata lies where it lies: who redirects wants something else to be read."""

    def redirect_request(self, *_: object) -> None:
        """None: the redirect is the answer, and no metadata."""


class CarriedFetcher(FetcherInterface):
    """Gives python-tuf its files; python-tuf bounds the bytes of each.

    Attributes:
        fetched: bytes that came over HTTP.
    """

    def __init__(
        self,
        carried: Mapping[str, bytes],
        limits: Limits,
        *,
        ask_for_root: bool,
        tls: Callable[[], ssl.SSLContext] = ssl.create_default_context,
    ) -> None:
        """Nothing is fetched yet.

        Args:
            carried: file name → bytes, as they came with the document.
            limits: of time.
            ask_for_root: whether the hub is asked for a root that was not carried. A device that is up to date asks
                nothing: what it was sent is the newest, until it does not add up or a release is to be fetched.
            tls: makes the context for HTTPS.
        """
        self._carried, self._limits, self._ask_for_root = carried, limits, ask_for_root
        self._tls = tls
        self._end = time.monotonic() + limits.all_s
        self.fetched = 0

    def _fetch(self, url: str) -> Iterator[bytes]:
        name = unquote(url.rpartition("/")[2])
        if name in self._carried:
            return iter((self._carried[name],))
        if name.endswith(f".{ROOT}.json") and not self._ask_for_root:
            raise DownloadHTTPError("no newer root was carried", HTTPStatus.NOT_FOUND)
        return self._download(url, resume=name != f"{TIMESTAMP}.json")

    def _download(self, url: str, *, resume: bool) -> Iterator[bytes]:
        """A file, continued where a connection ended; one that may have changed meanwhile is not."""
        have, end = 0, min(self._end, time.monotonic() + self._limits.file_s)
        for left in reversed(range(self._limits.tries)):
            try:
                with self._open(url, have) as answer:
                    skip = 0 if answer.status == HTTPStatus.PARTIAL_CONTENT else have
                    for chunk in self._chunks(answer, end):
                        fresh = chunk[skip:]
                        skip -= len(chunk) - len(fresh)
                        have += len(fresh)
                        self.fetched += len(chunk)
                        if fresh:
                            yield fresh
                    return
            except (OSError, http.client.HTTPException) as error:
                reason = getattr(error, "reason", error)
                if time.monotonic() >= end or isinstance(reason, TimeoutError):
                    raise SlowRetrievalError(f"{url} comes too slowly") from error
                if not left or (have and not resume):
                    raise DownloadError(f"{url} cannot be had: {reason}") from error

    @cached_property
    def _opener(self) -> urllib.request.OpenerDirector:
        """Made when there is something to fetch: the system's certificates take 0.2 s to read."""
        return urllib.request.build_opener(_NoRedirect, urllib.request.HTTPSHandler(context=self._tls()))

    def _open(self, url: str, have: int) -> http.client.HTTPResponse:
        headers = {"Range": f"bytes={have}-"} if have else {}
        try:
            request = urllib.request.Request(url, headers=headers)
            answer: http.client.HTTPResponse = self._opener.open(request, timeout=self._limits.silence_s)
            return answer
        except urllib.error.HTTPError as error:
            error.close()
            raise DownloadHTTPError(f"{url}: the hub answers with HTTP {error.code}", error.code) from error

    def _chunks(self, answer: http.client.HTTPResponse, end: float) -> Iterator[bytes]:
        while chunk := answer.read1(CHUNK_BYTES):
            yield chunk
            if time.monotonic() > end:
                raise SlowRetrievalError("the hub sends too slowly")
        if answer.length:  # what was announced and did not come
            raise http.client.IncompleteRead(b"", answer.length)
