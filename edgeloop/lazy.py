"""Names of a package that are imported when one is asked for: a device does not pay for what it never uses."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any


def lazily(package: str, *modules: str) -> Callable[[str], Any]:
    """A package's ``__getattr__`` (PEP 562): the names of its ``__all__`` that it lacks are those of modules inside.

    Type checkers are shown plain imports of the same names beside it.

    Args:
        package: its ``__name__``.
        modules: names of the modules inside it; the first that has a name gives it.
    """

    def find(name: str) -> Any:
        itself = sys.modules[package]
        for module in modules if name in itself.__all__ else ():
            inside = import_module(f"{package}.{module}")
            if hasattr(inside, name):
                found = getattr(inside, name)
                setattr(itself, name, found)  # the next one finds it without asking
                return found
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find
