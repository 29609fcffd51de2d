"""Where the key of a teacher is that is reached elsewhere, and where it may be sent: a part of the hub's settings."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator


class TeacherKey(BaseModel):
    """Where a key is, and where it may be sent. One of ``env`` and ``file``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(description="Only addresses that begin with this get it.")
    env: str = Field(default="", description="Name of the environment variable that holds it.")
    file: Path | None = Field(default=None, description="File that holds it.")

    @model_validator(mode="after")
    def _complete(self) -> TeacherKey:
        if bool(self.env) == (self.file is not None):
            raise ValueError("a key is in env or in file: name one of the two")
        if urlsplit(self.url).scheme not in ("http", "https") or not urlsplit(self.url).hostname:
            raise ValueError("url: it has to begin with https:// or http://")
        return self

    def is_for(self, url: str) -> bool:
        """Whether an address begins with ours: scheme, host and port the same, and the path below it."""
        own, other = urlsplit(self.url), urlsplit(url)
        same = (own.scheme, own.hostname, own.port) == (other.scheme, other.hostname, other.port)
        path = own.path.rstrip("/")
        return same and (other.path == path or other.path.startswith(f"{path}/")) and ".." not in other.path
