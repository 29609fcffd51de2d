"""What a value of the settings has to be, beyond its type; each returns it or raises ValueError with what would do."""

from __future__ import annotations

import base64
import binascii
import re

#: What is edgeloop's own on a broker: a device that published there would speak as something that it is not.
RESERVED = "edgeloop/"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")


def a_name(value: str) -> str:
    """A name of a source or a sink."""
    if not _NAME.fullmatch(value):
        raise ValueError("it has to be lower-case letters, digits, - and _, at most 32 of them")
    return value


def some(value: tuple[str, ...]) -> tuple[str, ...]:
    """At least one."""
    if not value:
        raise ValueError("it has to name one at least")
    return value


def lengths(value: tuple[int, ...]) -> tuple[int, ...]:
    """A tensor's lengths."""
    if any(length < 1 for length in value[1:]) or (value and value[0] < 1 and value[0] != -1) or len(value) > 16:
        raise ValueError("lengths are 1 or more, at most 16 of them; only the first may be -1")
    return value


def a_filter(value: str) -> str:
    """An MQTT topic filter."""
    levels = value.split("/")
    if any(("+" in level and level != "+") or ("#" in level and level != "#") for level in levels):
        raise ValueError("+ and # stand for whole levels")
    if "#" in levels[:-1]:
        raise ValueError("# can only be the last level")
    return _not_ours(value)


def a_topic(value: str) -> str:
    """An MQTT topic to publish to; it may have places to fill in."""
    if unknown := set(re.findall(r"\{.*?\}", value)) - {"{device}", "{source}"}:
        raise ValueError(f"{min(unknown)} is not known; {{device}} and {{source}} are")
    if "{" in value.split("/", maxsplit=1)[0]:  # a source that is called edgeloop would lead to what is not ours
        raise ValueError("its first level has to be plain; {device} and {source} may follow")
    if "+" in value or "#" in value:
        raise ValueError("+ and # cannot be in a topic that is published to")
    return _not_ours(value)


def _not_ours(value: str) -> str:
    if not value or len(value.encode()) > 60_000 or "\0" in value:
        raise ValueError("it has to be a topic, such as home/door/picture")
    if value.startswith(RESERVED):
        raise ValueError(f"{RESERVED} is for edgeloop's own messages; take another topic")
    return value


def a_url(value: str) -> str:
    """An address, http or https."""
    if not re.fullmatch(r"https?://[!-~]+", value):
        raise ValueError("it has to begin with http:// or https://, and to be plain ASCII")
    return value


def a_secret(value: str) -> str:
    """A secret of the Standard Webhooks specification."""
    try:
        key = base64.b64decode(value.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        key = b""
    if not value.startswith("whsec_") or not 24 <= len(key) <= 64:
        raise ValueError("it has to be whsec_ and then 24 to 64 random bytes in base64")
    return value


def header_lines(value: dict[str, str]) -> dict[str, str]:
    """HTTP headers."""
    for name, text in value.items():
        if not re.fullmatch(r"[A-Za-z0-9-]+", name) or not (text.isascii() and text.isprintable()):
            raise ValueError(f"{name!r:.40} is no header: its name and value have to be plain ASCII on one line")
    return value
