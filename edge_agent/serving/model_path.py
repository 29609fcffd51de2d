"""Paths below /v2/models/: which model, which version of it, and what is asked of it."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote

from edge_agent.serving.errors import NotFound

#: Characters of such a path: what was read of 1,024 of them is remembered, and clients write them.
LONGEST_PATH = 4096


class ModelPath(NamedTuple):
    """A path below /v2/models/: model, version if it names one, and what follows."""

    model: str
    version: str | None
    rest: tuple[str, ...]


@lru_cache(maxsize=1024)
def model_path(path: str) -> ModelPath:
    """Take a path below /v2/models/ apart; ``/versions/{v}`` may follow the model's name.

    Raises:
        NotFound: it is longer than any that there is; that is not remembered.
    """
    if len(path) > LONGEST_PATH:
        raise NotFound(f"there is nothing at {path[:200]}…: a path has {LONGEST_PATH} characters at most")
    model, *rest = [unquote(part) for part in path.rstrip("/").split("/")[3:]] or [""]
    if len(rest) >= 2 and rest[0] == "versions":
        return ModelPath(model, rest[1], tuple(rest[2:]))
    return ModelPath(model, None, tuple(rest))
