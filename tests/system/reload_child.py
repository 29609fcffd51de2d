"""A real agent that switches between two installed releases, again and again, as fast as it can load them.

Commands come on standard input, one a line: a number of switches, or ``memory``; each is answered with a line.
"""

from __future__ import annotations

import gc
import sys
import threading
from pathlib import Path

from edge_agent import settings
from edge_agent.app import Agent
from edge_agent.updates.testing import load_installed
from edgeloop.runtime.memory import trim_memory


def main() -> None:
    config = Path(sys.argv[1])
    agent = Agent(settings.load(config))
    threading.Thread(target=obey, args=(agent,), daemon=True).start()
    agent.run(announce=lambda line: print(line, flush=True))


def obey(agent: Agent) -> None:
    active = agent._updates._active
    store = active._store
    installed = [store.committed(), store.previous()]
    for line in sys.stdin:
        if line.strip() == "memory":
            gc.collect()
            trim_memory()
        else:
            for number in range(int(line)):
                release = installed[number % 2]
                index = active._files.index(release.release)
                folder = active._files.folder(release.release)
                active.switch(load_installed(folder, index, release, active._tests()))
        print(memory_bytes(), flush=True)


def memory_bytes() -> int:
    """Resident memory. (Proportional memory would change whenever another process shares or leaves a library.)"""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("this kernel does not say Rss")


if __name__ == "__main__":
    main()
