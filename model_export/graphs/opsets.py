"""What an older ONNX Runtime reads: the newest opset and IR version of each release, and graphs that keep within them.

A runtime reads every opset down to 7, and refuses what is newer than itself. Operators of the domain com.microsoft have
one version only, and are not bounded here: fp16, int4 and fused variants can need a newer runtime than the rest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from onnx import ModelProto

from model_export.errors import HubRefusedError, RequestError, UnsupportedModelError
from model_export.graphs.graph import all_nodes
from model_export.hub import Hub

#: Release of ONNX Runtime → (opset of ai.onnx, of ai.onnx.ml, IR version). Of the ONNX release that it was built with,
#: https://onnxruntime.ai/docs/reference/compatibility.html, and that release's versions, `onnx.helper.VERSION_TABLE`.
#: Where the two pages leave a doubt it is the lower one; a newer release reads at least what the last line says.
READS: dict[tuple[int, int], tuple[int, int, int]] = {
    (1, 12): (17, 3, 8),
    (1, 14): (18, 3, 8),
    (1, 15): (19, 3, 9),
    (1, 17): (20, 4, 9),
    (1, 18): (21, 5, 10),
    (1, 21): (22, 5, 10),
    (1, 23): (23, 5, 11),
    (1, 24): (24, 5, 12),
}
#: The oldest runtime that a package can be made for: the opset that graphs are brought to is 17.
OLDEST = min(READS)
_VERSION = re.compile(r"(\d+)\.(\d+)(\.\d+)*([a-z+-].*)?")


@dataclass(frozen=True)
class Limits:
    """What a release of ONNX Runtime reads.

    Attributes:
        runtime: the release, as it was named.
        opset: newest of ai.onnx.
        ml: newest of ai.onnx.ml.
        ir: newest IR version.
    """

    runtime: str
    opset: int
    ml: int
    ir: int


def limits_of(runtime: str) -> Limits:
    """Of a release: ``1.17`` or ``1.17.3``.

    Raises:
        RequestError: it is no version, or an older one than `OLDEST`.
    """
    found = _VERSION.fullmatch(runtime.strip())
    if found is None:
        raise RequestError(f"{runtime!r} is no version of ONNX Runtime", "name it as --min-runtime 1.17")
    release = (int(found[1]), int(found[2]))
    if release < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise RequestError(
            f"ONNX Runtime {runtime} is older than {oldest}, the oldest that packages are made for",
            "update the devices' onnxruntime",
        )
    return Limits(runtime.strip(), *READS[max(known for known in READS if known <= release)])


def too_new(model: ModelProto, limits: Limits) -> str:
    """Which operators' version the runtime does not read; empty where it reads all."""
    most = {"": limits.opset, "ai.onnx": limits.opset, "ai.onnx.ml": limits.ml}
    used = {node.domain for node in all_nodes(model.graph)}
    for opset in model.opset_import:
        if opset.domain in used and opset.version > most.get(opset.domain, opset.version):
            return f"opset {opset.version} of {opset.domain or 'ai.onnx'}, and it reads {most[opset.domain]}"
    return ""


def within(model: ModelProto, limits: Limits) -> ModelProto:
    """A finished graph with an IR version that the runtime reads; what the graph holds is in every one of them.

    Raises:
        UnsupportedModelError: its operators are newer than the runtime.
    """
    if reason := too_new(model, limits):
        raise UnsupportedModelError(
            f"ONNX Runtime {limits.runtime} cannot read the graph: it has {reason}",
            "leave out what needs it (processing of pictures needs opset 18, int4 opset 21), or update the devices",
        )
    copy: ModelProto = ModelProto.FromString(model.SerializeToString())
    copy.ir_version = min(model.ir_version, limits.ir)
    return copy


def oldest_in_fleet(hub: Hub, channel: str) -> str:
    """The oldest ONNX Runtime of the devices that follow a channel, as they tell it themselves.

    Raises:
        RequestError: none of them has told it.
        HubUnreachableError: nobody answered.
        HubRefusedError: the hub said no.
    """
    try:
        devices = hub.send("GET", "/api/v1/devices", lambda: {"params": {"channel": channel}}).json()
        told = [str((device.get("health") or {}).get("runtime", "")) for device in devices]
    except (ValueError, AttributeError, TypeError) as error:
        raise HubRefusedError(f"{hub.address} does not list its devices: {error}", "check the address") from error
    versions = [version for version in told if _VERSION.fullmatch(version)]
    if not versions:
        raise RequestError(
            f"no device of the channel {channel} has told its ONNX Runtime ({len(told)} follow it)",
            "name the oldest yourself: --min-runtime 1.17",
        )
    return min(versions, key=lambda version: tuple(map(int, version.split(".")[:2])))
