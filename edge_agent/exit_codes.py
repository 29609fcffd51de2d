"""Exit codes of ``edge-agent``, as docs/reference/edge-agent.md lists them. No number is ever given another meaning."""

from __future__ import annotations

OK = 0
#: A fault of the agent.
FAULT = 1
#: The command line is wrong (argparse's own code).
USAGE = 2
#: A setting is wrong, or the settings file cannot be read.
SETTINGS = 3
#: The data folder cannot be used, or another agent uses it.
DATA = 4
#: The address is taken, or not this machine's.
ADDRESS = 5
#: No agent answers (`status`, `rollback`).
NO_AGENT = 6
#: `doctor` found something that keeps the agent from working.
UNHEALTHY = 7
#: `rollback`: no release is kept to go back to.
NOTHING_BEFORE = 8
#: The device is not enrolled, or its identity is damaged.
IDENTITY = 9
#: `enrol`: the hub refused, or cannot be reached.
ENROLMENT = 10
