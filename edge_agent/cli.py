"""The command ``edge-agent``. It only translates: options, results, errors and exit codes.

Each command imports what it runs: ``--help`` and wrong settings do not wait for onnxruntime, and an agent does not
carry for years what ``status`` and ``doctor`` need for a moment.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from edge_agent import exit_codes
from edge_agent.settings import Settings, SettingsError, load
from edgeloop import __version__


class Failed(Exception):
    """A command cannot do its work: what to say, and the exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def main() -> None:
    """Entry point of the console script."""
    sys.exit(command(sys.argv[1:]))


def command(arguments: Sequence[str]) -> int:
    """Run one command line; returns its exit code.

    Raises:
        SystemExit: the command line is wrong, or asked for help or the version.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.run is None:
        parser.print_help(sys.stderr)
        return exit_codes.USAGE
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except Failed as error:
        print(f"edge-agent: {error}", file=sys.stderr)
        return error.code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("edge-agent", description="Runs, observes and updates a model on this device.")
    parser.set_defaults(run=None)
    parser.add_argument("--version", action="version", version=f"edge-agent {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, run, prints in (
        ("run", _run, False),
        ("status", _status, True),
        ("doctor", _doctor, True),
        ("rollback", _rollback, True),
        ("enrol", _enrol, True),
    ):
        one = commands.add_parser(name, help=run.__doc__, description=run.__doc__)
        one.set_defaults(run=run)
        one.add_argument(
            "--config", type=Path, metavar="FILE", help="Settings, a TOML file; EDGE_AGENT_* variables are stronger."
        )
        if name == "rollback":
            one.add_argument("--reason", default="no reason given", help="Why; the hub is told.")
        if name == "enrol":
            one.add_argument("--hub", required=True, metavar="URL", help="Base URL of the hub, https://…")
            one.add_argument("--token", required=True, help="What `cloud-hub enrolment create` printed; - reads it.")
            one.add_argument(
                "--root", type=Path, metavar="FILE", help="Root metadata of signed releases, brought along."
            )
            one.add_argument("--key", type=Path, metavar="FILE", help="A key that is there, as a TPM's is.")
            one.add_argument("--request", type=Path, metavar="FILE", help="Certificate request of that key, PEM.")
        if prints:
            one.add_argument("--json", action="store_true", help="Print the result as one JSON object.")
    return parser


def _run(options: argparse.Namespace) -> int:
    """Run the agent until it is told to stop (SIGTERM, SIGINT)."""
    gc.disable()  # until it serves: imports make objects by the ten thousand, and hardly any garbage
    settings = _settings(options)
    from edge_agent.app import Agent
    from edge_agent.doors import AddressError
    from edge_agent.enrolled import with_identity
    from edge_agent.identity import IdentityError
    from edge_agent.logs import configure
    from edge_agent.parts import DataError

    configure(settings.log_level, settings.log_format)
    try:
        settings, identity = with_identity(settings)

        def reread() -> Settings:
            return with_identity(load(options.config))[0]

        Agent(settings, reread, identity).run(announce=lambda line: print(line, flush=True))
    except SettingsError as error:
        raise Failed(str(error), exit_codes.SETTINGS) from error
    except IdentityError as error:
        raise Failed(str(error), exit_codes.IDENTITY) from error
    except DataError as error:
        raise Failed(str(error), exit_codes.DATA) from error
    except AddressError as error:
        raise Failed(str(error), exit_codes.ADDRESS) from error
    return exit_codes.OK


def _status(options: argparse.Namespace) -> int:
    """Say what the running agent serves, what its update does, and what waits to be sent."""
    from edge_agent.status import NoAgent, ask, table

    try:
        found = ask(_settings(options))
    except NoAgent as error:
        raise Failed(str(error), exit_codes.NO_AGENT) from error
    if options.json:
        print(json.dumps(found))
    else:
        _show(table(found))
    return exit_codes.OK


def _doctor(options: argparse.Namespace) -> int:
    """Examine providers, disk, clock, broker and hub: what is wrong, and how to mend it."""
    from edge_agent.doctor import examine
    from edge_agent.enrolled import with_identity
    from edge_agent.identity import IdentityError
    from edge_agent.updates.providers import tables

    settings = _settings(options)
    with contextlib.suppress(IdentityError, SettingsError):  # it is one of the findings
        settings, _ = with_identity(settings)
    findings, measured = examine(settings), tables(settings)
    healthy = all(finding.level != "error" for finding in findings)
    if options.json:
        document = {"healthy": healthy, "findings": [asdict(finding) for finding in findings], "evidence": measured}
        print(json.dumps(document))
    else:
        from rich.table import Table

        colours = {"ok": "green", "warning": "yellow", "error": "red"}
        found = Table("check", "", "found", "how to mend it")
        for finding in findings:
            level = f"[{colours[finding.level]}]{finding.level}[/]"
            found.add_row(finding.check, level, finding.found, finding.mend)
        _show(found)
        for known in measured:
            rows = Table("variant", "provider", "threads", "ms a row", "load ms", "memory", "", title=known["release"])
            for row in known["table"]:
                verdict = "[green]runs[/]" if row["chosen"] else row["reason"]
                figures = (_figure(row["median_ms"], ".3f"), _figure(row["load_ms"], ",.0f"))
                memory = _figure(row["memory_bytes"], ",")
                rows.add_row(row["variant"], row["provider"], str(row["threads"]), *figures, memory, verdict)
            _show(rows)
    return exit_codes.OK if healthy else exit_codes.UNHEALTHY


def _figure(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _rollback(options: argparse.Namespace) -> int:
    """Go back to the release before, until the channel offers another one."""
    from edge_agent.rollback import NoAnswer, NothingBefore, roll_back

    try:
        found = roll_back(_settings(options), options.reason)
    except NothingBefore as error:
        raise Failed(str(error), exit_codes.NOTHING_BEFORE) from error
    except NoAnswer as error:
        raise Failed(str(error), exit_codes.NO_AGENT) from error
    if options.json:
        print(json.dumps(found))
    else:
        when = "now" if found["running"] else "at its next start"
        print(f"left {found['left']}; the agent serves {found['release'] or 'nothing'} {when}")
    return exit_codes.OK


def _enrol(options: argparse.Namespace) -> int:
    """Get this device a certificate from the hub, for a key that stays here."""
    from edge_agent.identity import IdentityError
    from edge_agent.identity.enrol import enrol
    from edge_agent.identity.hub_call import HubAway, HubRefuses
    from edge_agent.parts import DataError, lock
    from edgeloop.protocol import ProtocolError
    from edgeloop.protocol.enrolment import EnrolmentToken

    settings = _settings(options)
    try:
        token = EnrolmentToken.parse(sys.stdin.readline() if options.token == "-" else options.token)
        root = None if options.root is None else options.root.read_bytes()
        request = None if options.request is None else options.request.read_bytes()
        with lock(settings.data):
            found = enrol(
                settings.data, settings.device, options.hub, token, root=root, key=options.key, request=request
            )
    except ProtocolError as error:
        raise Failed(str(error), exit_codes.USAGE) from error
    except DataError as error:
        raise Failed(str(error), exit_codes.DATA) from error
    except (HubAway, HubRefuses) as error:
        raise Failed(str(error), exit_codes.ENROLMENT) from error
    except (IdentityError, OSError) as error:
        raise Failed(str(error), exit_codes.IDENTITY) from error
    known = {"device": found.device, "fleet": found.fleet, "hub": found.hub, "channels": list(found.channels)}
    if options.json:
        print(json.dumps({**known, "ends": found.ends, "root": found.root is not None}))
    else:
        until = time.strftime("%Y-%m-%d", time.gmtime(found.ends))
        signed = "" if found.root is not None else "; without root metadata it takes no signed release"
        print(f"{found.device} is enrolled in the fleet {found.fleet} until {until}, and renews by itself{signed}")
    return exit_codes.OK


def _show(table: object) -> None:
    from rich.console import Console

    Console().print(table)


def _settings(options: argparse.Namespace) -> Settings:
    try:
        return load(options.config)
    except SettingsError as error:
        raise Failed(str(error), exit_codes.SETTINGS) from error
