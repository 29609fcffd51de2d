"""Calls of teachers elsewhere over HTTP, bounded in time and bytes as a whole: who trickles is cut off as well.

The calls run in an event loop of their own, since only there a call can be ended at a moment, whatever it waits for.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from cloud_hub.teachers.port import Malformed, TeacherError, Unavailable, Unfit

MAX_ANSWER_BYTES = 1 << 20
CONNECT_S = 10.0
#: Statuses that are about what was sent, and not about who answers.
_ABOUT_THE_INPUT = (400, 413, 422)
#: How long somebody who says 429 or 503 and not for how long is left alone, seconds.
_PAUSE_S = 1.0
_SAID = 200


@dataclass(frozen=True)
class Reply:
    """An answer over HTTP.

    Attributes:
        status: of HTTP.
        headers: by name in small letters.
        body: as it came.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


class Calls:
    """Connections to one teacher, shared by the threads of its desk.

    Args:
        most: connections at a time.
    """

    def __init__(self, most: int) -> None:
        import httpx  # a tenth of what a hub imports: one without teachers elsewhere does without

        self._loop = asyncio.new_event_loop()
        limits = httpx.Limits(max_connections=most, max_keepalive_connections=most)
        self._client = httpx.AsyncClient(limits=limits, follow_redirects=False)
        self._thread = threading.Thread(target=self._loop.run_forever, name="teacher-calls", daemon=True)
        self._thread.start()

    def post(self, url: str, body: bytes, key: str, timeout_s: float) -> Reply:
        """Send JSON and read the answer.

        Args:
            url: where to.
            body: JSON.
            key: sent as a bearer token; "" for none.
            timeout_s: for all of it.

        Raises:
            Unavailable: there was no answer in time.
            Malformed: the answer is longer than `MAX_ANSWER_BYTES`.
        """
        headers = {"content-type": "application/json", "user-agent": "edgeloop-cloud-hub"}
        # What is compressed can be of any size.
        headers |= {"accept": "application/json", "accept-encoding": "identity"}
        if key:
            headers["authorization"] = f"Bearer {key}"
        return asyncio.run_coroutine_threadsafe(self._post(url, body, headers, timeout_s), self._loop).result()

    def close(self) -> None:
        """Close the connections and end the loop."""
        asyncio.run_coroutine_threadsafe(self._client.aclose(), self._loop).result(5.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5.0)
        self._loop.close()

    async def _post(self, url: str, body: bytes, headers: Mapping[str, str], timeout_s: float) -> Reply:
        import httpx

        timeout = httpx.Timeout(timeout_s, connect=min(timeout_s, CONNECT_S))
        found = bytearray()
        try:
            async with asyncio.timeout(timeout_s):
                sent = self._client.stream("POST", url, content=body, headers=dict(headers), timeout=timeout)
                async with sent as answer:
                    async for chunk in answer.aiter_raw():
                        found += chunk
                        if len(found) > MAX_ANSWER_BYTES:
                            raise Malformed(f"its answer is longer than {MAX_ANSWER_BYTES} bytes")
        except (TimeoutError, httpx.TimeoutException) as error:
            raise Unavailable(f"no answer within {timeout_s:.3g} s", after_sending=True) from error
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Unavailable(f"{type(error).__name__}: {error}"[:500]) from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise Unavailable(f"{type(error).__name__}: {error}"[:500], after_sending=True) from error
        return Reply(answer.status_code, {name.lower(): text for name, text in answer.headers.items()}, bytes(found))


def check(reply: Reply, key: str) -> bytes:
    """The body of an answer that is a success.

    Args:
        reply: the answer.
        key: that was sent, which must not be told on.

    Raises:
        Unfit: it says that this input is wrong.
        Unavailable: it is any other answer.
    """
    if 200 <= reply.status < 300:
        return reply.body
    raise _refusal(reply, key)


def _refusal(reply: Reply, key: str) -> TeacherError:
    if reply.status in _ABOUT_THE_INPUT:
        said = "".join(letter if letter.isprintable() else " " for letter in reply.body[:2000].decode(errors="replace"))
        said = said.replace(key, "…") if key else said
        return Unfit(f"it answered {reply.status}: {said[:_SAID]}")
    if reply.status in (429, 503):
        wait_s = retry_after(reply.headers.get("retry-after", ""), time.time())
        return Unavailable(f"it answered {reply.status}", retry_after_s=wait_s or _PAUSE_S)
    return Unavailable(f"it answered {reply.status}")


def retry_after(text: str, now: float) -> float:
    """Seconds that the header Retry-After asks for, as a number or a date (RFC 9110, 10.2.3); 0 where it is neither."""
    if text.isascii() and text.isdecimal() and len(text) < 10:
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (TypeError, ValueError, OverflowError):
        return 0.0
