"""``python -m tests.conformance.aspects.write_goldens``: write down what every aspect counts, after a new one has come.

With ``--print`` it prints the digests instead. An aspect that is already there must not change: profiles and windows of
released packages hold its counts.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.conformance.aspects.kit import digests

GOLDENS = Path(__file__).with_name("goldens.json")

if __name__ == "__main__":
    text = json.dumps(digests(), indent=1) + "\n"
    if "--print" in sys.argv:
        print(text)
    else:
        GOLDENS.write_text(text)
