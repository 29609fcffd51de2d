"""Home Assistant's MQTT discovery: the documents that make a sensor appear there. Pure.

https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery: a retained JSON document on
``<prefix>/sensor/<object id>/config``; the object id has letters, digits, ``_`` and ``-`` only, and is best the
``unique_id``. https://www.home-assistant.io/integrations/sensor.mqtt/ lists its fields.
"""

from __future__ import annotations

import json
import re
from typing import Any

from edge_agent.flow_settings import HomeAssistantSettings
from edge_agent.flows.brokers import Device
from edgeloop import __version__

ONLINE, OFFLINE = b"online", b"offline"
#: What the sensor shows beside its state.
ATTRIBUTES = (
    "{{ {'id': value_json.id, 'confidence': value_json.confidence | default(none), "
    "'model': value_json.model_name, 'version': value_json.model_version, 'item': value_json.item} | tojson }}"
)


def availability_topic(settings: HomeAssistantSettings, device: Device, sink: str) -> str:
    """Where the agent says ``online``, and the broker ``offline`` when it vanishes."""
    return f"{settings.prefix}/sensor/{object_id(device, sink)}/availability"


def config_topic(settings: HomeAssistantSettings, device: Device, sink: str, source: str) -> str:
    """Where the sensor of a source is announced."""
    return f"{settings.prefix}/sensor/{object_id(device, sink, source)}/config"


def config(settings: HomeAssistantSettings, device: Device, sink: str, source: str, state_topic: str) -> bytes:
    """The announcement of a source's sensor; ``state_topic`` is where its results are published."""
    document: dict[str, Any] = {
        "name": settings.title or source,
        "unique_id": object_id(device, sink, source),
        "state_topic": state_topic,
        "value_template": settings.value_template,
        "json_attributes_topic": state_topic,
        "json_attributes_template": ATTRIBUTES,
        "availability": [
            {
                "topic": availability_topic(settings, device, sink),
                "payload_available": ONLINE.decode(),
                "payload_not_available": OFFLINE.decode(),
            }
        ],
        "qos": 1,
        "device": {
            "identifiers": [object_id(device)],
            "name": device.name,
            "manufacturer": "edgeloop",
            "model": "edge-agent",
            "sw_version": __version__,
        },
        "origin": {"name": "edgeloop", "sw_version": __version__},
    }
    optional = {
        "unit_of_measurement": settings.unit,
        "device_class": settings.device_class,
        "icon": settings.icon,
        "expire_after": settings.expire_after_s or None,
    }
    document.update({name: value for name, value in optional.items() if value is not None})
    return json.dumps(document, separators=(",", ":")).encode()


def object_id(device: Device, *more: str) -> str:
    """An id in the alphabet that Home Assistant allows; one device has another than every other."""
    return "_".join(re.sub(r"[^A-Za-z0-9_-]", "-", part) for part in ("edgeloop", device.fleet, device.name, *more))
