"""The limit of a Python subscriber: paho-mqtt receives at QoS 1, acknowledges to the broker, and only counts.

Run as ``python -m benchmarks.kit.counter PORT FILTER``. For each number that it gets it prints a line when so many
messages have come.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

counted = 0
goal = 1 << 62
reached = threading.Event()


def count(_client: Client, _data: Any, _message: MQTTMessage) -> None:
    """One more."""
    global counted  # noqa: PLW0603 - the least that a callback can do
    counted += 1
    if counted >= goal:
        reached.set()


def main() -> None:
    """Count."""
    global goal  # noqa: PLW0603
    client = Client(CallbackAPIVersion.VERSION2, "counter")
    client.on_message = count
    subscribed = threading.Event()
    client.on_subscribe = lambda *_: subscribed.set()
    client.on_connect = lambda *_: client.subscribe(sys.argv[2], qos=1)
    client.connect("127.0.0.1", int(sys.argv[1]))
    client.loop_start()
    subscribed.wait(10)
    print("ready", flush=True)
    for line in sys.stdin:
        goal = counted + int(line)
        print("counting", flush=True)
        reached.wait()
        reached.clear()
        print(counted, flush=True)


if __name__ == "__main__":
    main()
