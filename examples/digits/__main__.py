"""`make demo`: tell the story, print the figures, and fail when one does not hold."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from examples.digits.processes import ProcessFailed
from examples.digits.story import Story


def main(story: type[Story] = Story, description: str | None = __doc__) -> int:
    """Exit status: 0 when every figure holds, 1 when one does not, 2 when the story could not be told."""
    parser = argparse.ArgumentParser(prog="make demo", description=description)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures as JSON")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep data and logs in this empty folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgeloop-demo-", ignore_cleanup_errors=True) as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            print(f"{folder} is not empty; name an empty folder with --keep", file=sys.stderr)
            return 2
        try:
            figures = story(folder.resolve()).tell()
        except ProcessFailed as error:
            print(f"\nthe demo could not go on: {error}", file=sys.stderr)
            return 2
    if arguments.json:
        figures.write(arguments.json)
    return 0 if figures.show() else 1


if __name__ == "__main__":
    sys.exit(main())
