"""Secrets of keys: from the environment or from a person at a terminal, never from an argument that others can read."""

from __future__ import annotations

import getpass
import os
import re
import sys

from model_export.errors import KeyFileError

PASSPHRASE, PIN = "MODEL_EXPORT_PASSPHRASE", "MODEL_EXPORT_PIN"


def passphrase(key: str, *, new: bool = False) -> bytes:
    """The passphrase of a key.

    Args:
        key: its name; ``alice-2`` is asked for in ``MODEL_EXPORT_PASSPHRASE_ALICE_2`` first, then without the name.
        new: it is being made: asked for twice.

    Raises:
        KeyFileError: it is not in the environment, and nobody can be asked; or it is empty.
    """
    own = f"{PASSPHRASE}_{re.sub('[^A-Z0-9]', '_', key.upper())}"
    found = os.environ.get(own, os.environ.get(PASSPHRASE))
    if found is None:
        found = _ask(f"Passphrase of the key {key}: ", f"set {own} or {PASSPHRASE}")
        if new and _ask("The same again: ", "") != found:
            raise KeyFileError("the two passphrases differ", "try again")
    if not found:
        raise KeyFileError(f"the passphrase of the key {key} is empty", "--no-passphrase makes a key without one")
    return found.encode()


def pin(what: str) -> str:
    """A secret that a signer asks for, such as the PIN of a device; raises KeyFileError."""
    return os.environ.get(PIN) or _ask(f"{what}: ", f"set {PIN}")


def _ask(prompt: str, hint: str) -> str:
    if not sys.stdin.isatty():
        raise KeyFileError(f"{prompt.rstrip(': ')} is needed, and there is no terminal to ask at", hint)
    return getpass.getpass(prompt)
