"""What runs in the embedded broker's process. Start it by ``cloud_hub.broker`` only.

``python -m cloud_hub.broker_child PARENT mosquitto PROGRAM CONFIG`` becomes Mosquitto;
``python -m cloud_hub.broker_child PARENT amqtt PORT FOLDER`` serves aMQTT on loopback; the folder is only a mark by
which a later hub knows the process.

Either way it ends when its parent does, also when the parent is killed: Linux sends the signal (``prctl``). Elsewhere
the next hub finds the process by its pid file.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Tie this process to its parent and become the broker."""
    parent, kind, *rest = arguments
    _die_with(int(parent))
    if kind == "mosquitto":
        program, config = rest
        os.execv(program, [program, "-c", config])
    elif kind == "amqtt":
        asyncio.run(_serve_amqtt(int(rest[0])))
    else:
        raise SystemExit(f"there is no broker {kind!r}")


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended between the fork and the line above
        raise SystemExit(0)


async def _serve_amqtt(port: int) -> None:
    from amqtt.broker import Broker

    logging.basicConfig(level=logging.WARNING, format="amqtt: %(message)s")
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    broker = Broker(
        {
            # aMQTT's access rules do not hold (a retained message reached a client whose subscription they had
            # refused), so the address is no setting: nobody outside this machine gets to it.
            "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        }
    )
    await broker.start()
    await ended.wait()
    await asyncio.wait_for(broker.shutdown(), timeout=2.0)


if __name__ == "__main__":
    main(sys.argv[1:])
