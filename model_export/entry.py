"""The command: all of it where typer is; with a device's libraries alone what a device needs of it, `verify`.

typer brings pydantic, 15 MB that nothing on a device runs. So what verifies a package there reads its arguments by the
standard library; what it does, and says, is the same.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from edgeloop import __version__


def main() -> None:
    """Entry point of the console script."""
    if find_spec("typer") is None:
        sys.exit(device_main(sys.argv[1:]))
    from model_export.cli import main as whole

    whole()


def device_main(arguments: Sequence[str]) -> int:
    """The command on a device; returns the exit code."""
    from model_export.errors import ExportError, MissingLibraryError
    from model_export.telling import err, out, print_json, tell_error

    parser = argparse.ArgumentParser(
        prog="model-export",
        description="Verify packages. The other commands need pip install 'edgeloop[export]'.",
    )
    parser.add_argument("--version", action="version", version=f"model-export {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    verify = commands.add_parser("verify", help="Audit a package, and run its golden cases on this machine.")
    verify.add_argument("package", type=Path, help="The package's folder.")
    verify.add_argument("--deadline", type=float, default=30.0, help="Seconds that a variant's golden cases may take.")
    verify.add_argument("--json", action="store_true", help="Print the result, or the error, as one JSON object.")
    try:
        if arguments and not arguments[0].startswith("-") and arguments[0] != "verify":
            raise MissingLibraryError(
                f"model-export {arguments[0]} needs libraries that are not here", "pip install 'edgeloop[export]'"
            )
        asked = parser.parse_args(arguments)
        from model_export.reading.verify import require, table_of, verify_package

        def step(text: str) -> None:
            err.print(f"{text} …", highlight=False, markup=False, soft_wrap=True)

        report = verify_package(asked.package, deadline_s=asked.deadline, on_step=step)
        if not asked.json:
            out.print(table_of(report))
        elif report.ok:
            print_json(report.as_dict())
        require(report)
    except ExportError as error:
        return tell_error(error, "--json" in arguments)
    return 0
