"""Exit codes of ``cloud-hub``. A number is never used for something else later."""

from __future__ import annotations

OK = 0
INTERNAL = 1
"""A defect of the hub: the log has a traceback."""
USAGE = 2
"""The command line is wrong."""
SETTINGS = 3
"""The settings are wrong, or their file cannot be read."""
DATA_IN_USE = 4
"""Another hub uses the data folder."""
PORT_TAKEN = 5
"""A port that the hub should listen on is taken, or is not allowed."""
NO_BROKER = 6
"""The broker that the settings ask for cannot run on this machine."""
DATA_UNUSABLE = 7
"""The data folder cannot be written, or its records are damaged or of a newer version."""
NO_IDENTITY = 8
"""The hub's certificates are damaged, or the authority that should issue them does not answer."""
AUDIT_BROKEN = 9
"""The audit log was tampered with: `cloud-hub audit verify` says where; or a deletion's proof does not hold:
`cloud-hub samples verify`."""
REFUSED = 10
"""A hub that runs refused what the command asked of it, or none runs on this data folder."""
METADATA_REFUSED = 11
"""`cloud-hub trust`: signed metadata, or what was asked for them, were refused; the message says why."""

ALL = {
    "OK": OK,
    "INTERNAL": INTERNAL,
    "USAGE": USAGE,
    "SETTINGS": SETTINGS,
    "DATA_IN_USE": DATA_IN_USE,
    "PORT_TAKEN": PORT_TAKEN,
    "NO_BROKER": NO_BROKER,
    "DATA_UNUSABLE": DATA_UNUSABLE,
    "NO_IDENTITY": NO_IDENTITY,
    "AUDIT_BROKEN": AUDIT_BROKEN,
    "REFUSED": REFUSED,
    "METADATA_REFUSED": METADATA_REFUSED,
}
