"""`make bench`: run every benchmark in this folder, one after another, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

#: Not benchmarks, but what they share.
SHARED = {"__init__", "__main__", "models"}


def main() -> int:
    """Exit status: 0 when every benchmark ended with 0."""
    names = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in SHARED)
    chosen = sys.argv[1:] or names
    failed = []
    for name in chosen:
        print(f"── {name}", flush=True)
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode:
            failed.append(name)
    if failed:
        print(f"did not hold, or did not run: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
