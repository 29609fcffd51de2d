"""Chooses how a package runs in another environment than the tests', and says so as JSON on its standard output."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from edgeloop.package import Package
from edgeloop.runtime import Rules, Selector, available_providers, runtime_version


def main() -> int:
    folder, data, rules = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    lines: list[str] = []
    package = Package.open(folder)
    choice = Selector(data, Rules(**rules)).select(package, progress=lines.append)
    rows = choice.best.run(package.golden().inputs)
    found = {
        "onnxruntime": runtime_version(),
        "available": available_providers(),
        "provider": choice.best.provider,
        "placement": choice.best.placement,
        "golden": choice.golden.ok,
        "chosen": choice.chosen,
        "table": [asdict(row) for row in choice.table],
        "note": choice.note,
        "progress": lines,
        "outputs": [values.shape for values in rows],
    }
    print(json.dumps(found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
