"""The operators of onnxruntime-extensions, for the packages that need them: tokenizers.

The library is the device's own, of a wheel that its owner has installed; a package brings none. It is found without
importing the wheel's Python, which would import whatever it finds of transformers and torch, for half a minute.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import cache
from importlib.machinery import PathFinder
from typing import Any

from edgeloop.package.needs import EXTENSIONS, INSTALL
from edgeloop.runtime.errors import ModelLoadError

_MODULE, _LIBRARY = "onnxruntime_extensions", "_extensions_pydll"


@cache
def library() -> str | None:
    """Path of the library on this machine; None: it is not installed."""
    found = importlib.util.find_spec(_MODULE)
    places = None if found is None else found.submodule_search_locations
    inside = None if places is None else PathFinder.find_spec(_LIBRARY, list(places))
    return None if inside is None else inside.origin


def lacking(needs: Sequence[str]) -> str:
    """What of a package's needs this machine lacks, and how to get it, as a sentence; "": nothing."""
    absent = [need for need in needs if need != EXTENSIONS or library() is None]
    return "; ".join(f"the model needs {need}, which is not installed here: {INSTALL.get(need, '')}" for need in absent)


def register(needs: Sequence[str], options: Any) -> None:
    """Let a session have the operators that its package needs.

    Args:
        needs: the package's.
        options: ``onnxruntime.SessionOptions``.

    Raises:
        ModelLoadError: this machine lacks something.
    """
    if not needs:
        return
    if reason := lacking(needs):
        raise ModelLoadError(reason)
    options.register_custom_ops_library(library())
