"""`make bench`: run every benchmark in this folder, one after another, each in a process of its own.

``python -m benchmarks [--quick] [NAME …]`` runs some of them, or all with fewer repetitions where that is possible.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
#: Not benchmarks, but what they share.
SHARED = {"__init__", "__main__", "models"}


def main() -> int:
    """Exit status: 0 when every benchmark ended with 0."""
    names = sorted(
        {path.stem for path in HERE.glob("*.py")} - SHARED | {path.parent.name for path in HERE.glob("*/__main__.py")}
    )
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a look, not a measurement")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(names))
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(names):
        parser.error(f"there is no benchmark {min(unknown)}; there are {', '.join(names)}")
    failed, began = [], time.monotonic()
    for name in arguments.names or names:
        print(f"── {name}", flush=True)
        started = time.monotonic()
        command = [sys.executable, "-m", f"benchmarks.{name}", *(["--quick"] if arguments.quick else [])]
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
        print(f"── {name}: {time.monotonic() - started:.0f} s", flush=True)
    print(f"{time.monotonic() - began:.0f} s in all")
    if failed:
        print(f"did not hold, or did not run: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
