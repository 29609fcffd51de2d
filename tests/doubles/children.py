"""Programs that answer in a process of their own in the place of one that measures, and misbehave."""

from __future__ import annotations

import json
import os
import sys
import time


def hang() -> int:
    """It is asked, and never answers."""
    json.load(sys.stdin)
    time.sleep(600)
    return 0


def grow() -> int:
    """It takes more and more memory, and uses it."""
    json.load(sys.stdin)
    taken = []
    while True:
        taken.append(bytearray(os.urandom(1 << 12)) * (1 << 11))
        time.sleep(0.02)


def tell() -> int:
    """It tells what it sees of its environment."""
    json.load(sys.stdin)
    print(json.dumps({"reason": ",".join(sorted(os.environ))}), flush=True)
    return 0
