"""Where results and errors go, and in which form: what commands need however their arguments are read."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich.console import Console

from model_export.errors import ExportError
from model_export.exit_codes import exit_code_of

#: Results go to stdout, everything else to stderr, so that --json can be piped.
out, err = Console(), Console(stderr=True)


def print_json(value: dict[str, Any]) -> None:
    """The result as JSON."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def tell_error(error: ExportError, as_json: bool) -> int:
    """Print an error with its hint; returns the exit code."""
    code = exit_code_of(error)
    if as_json:
        print_json({"error": str(error), "hint": error.hint, "exit_code": int(code), "kind": code.name.lower()})
    err.print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
    if error.hint:
        err.print(f"  try: {error.hint}", highlight=False, markup=False, soft_wrap=True)
    return int(code)
