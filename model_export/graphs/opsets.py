"""What an older ONNX Runtime reads: the newest opset and IR version of each release, and graphs that keep within them.

A runtime reads every opset down to 7, and refuses what is newer than itself. Operators of its own domain,
com.microsoft, have one version only, so of these it says here by name and attribute which release has them: int4 and
fused variants need a newer runtime than the rest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from onnx import ModelProto

from model_export.errors import HubRefusedError, RequestError, UnsupportedModelError
from model_export.graphs.graph import CONTRIB, all_nodes
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
#: Release of ONNX Runtime → what it reads first: operators of com.microsoft that our tools write, and their attributes.
#: Found by giving each to the released wheels of 1.15, 1.16 and 1.17, which refuse an operator or an attribute that
#: they do not know. Older ones were not tried; the Tokenizer, of scikit-learn's vectorizers, is older than all of them.
READS_OWN: dict[tuple[int, int], dict[str, str]] = {
    (1, 12): {"Tokenizer": "mark mincharnum pad_value separators stopwords tokenexp"},
    (1, 15): {
        "Attention": "mask_filter_value num_heads qkv_hidden_sizes scale unidirectional",
        "BiasGelu": "",
        "DynamicQuantizeLSTM": "activation_alpha activation_beta activations clip direction hidden_size input_forget",
        "EmbedLayerNormalization": "epsilon mask_index_type",
        "FastGelu": "",
        "FusedMatMul": "alpha transA transB transBatchA transBatchB",
        "Gelu": "",
        "MultiHeadAttention": "mask_filter_value num_heads scale",
        "QAttention": "mask_filter_value num_heads scale unidirectional",
        "QEmbedLayerNormalization": "epsilon",
        "QuickGelu": "alpha",
        "SkipLayerNormalization": "epsilon",
        "SkipSimplifiedLayerNormalization": "epsilon",
    },
    (1, 17): {
        "Attention": "rotary_embedding_dim",
        "MatMulNBits": "K N accuracy_level bits block_size",
        "MultiHeadAttention": "unidirectional",
    },
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
        own: operators of com.microsoft, each with the attributes that are read.
    """

    runtime: str
    opset: int
    ml: int
    ir: int
    own: Mapping[str, frozenset[str]] = field(default_factory=dict, repr=False)


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
    own: dict[str, frozenset[str]] = {}
    for known in sorted(READS_OWN):
        for operator, attributes in READS_OWN[known].items() if known <= release else ():
            own[operator] = own.get(operator, frozenset()).union(attributes.split())
    return Limits(runtime.strip(), *READS[max(known for known in READS if known <= release)], own)


def too_new(model: ModelProto, limits: Limits) -> str:
    """Which operators the runtime does not read; empty where it reads all."""
    most = {"": limits.opset, "ai.onnx": limits.opset, "ai.onnx.ml": limits.ml}
    nodes = list(all_nodes(model.graph))
    used = {node.domain for node in nodes}
    for opset in model.opset_import:
        if opset.domain in used and opset.version > most.get(opset.domain, opset.version):
            return f"opset {opset.version} of {opset.domain or 'ai.onnx'}, and it reads {most[opset.domain]}"
    for node in nodes:
        if node.domain != CONTRIB:
            continue
        read = limits.own.get(node.op_type)
        unread = [] if read is None else sorted(a.name for a in node.attribute if a.name not in read)
        if read is None or unread:
            what = f"{CONTRIB}.{node.op_type}" + (f" with {unread[0]}" if unread else "")
            return f"{what}, and {_since(node.op_type, unread[0] if unread else '')}"
    return ""


def _since(operator: str, attribute: str) -> str:
    """Which release reads an operator, or an attribute of it."""
    for release in sorted(READS_OWN):
        attributes = READS_OWN[release].get(operator)
        if attributes is not None and (not attribute or attribute in attributes.split()):
            return f"ONNX Runtime {release[0]}.{release[1]} is the first that reads it"
    return "no release is known to have it"


def within(model: ModelProto, limits: Limits) -> ModelProto:
    """A finished graph with an IR version that the runtime reads; what the graph holds is in every one of them.

    Raises:
        UnsupportedModelError: its operators are newer than the runtime.
    """
    if reason := too_new(model, limits):
        raise UnsupportedModelError(
            f"ONNX Runtime {limits.runtime} cannot read the graph: it has {reason}",
            "leave out what needs it (pictures need 1.14, fused operators 1.15, int4 1.17), or update the devices",
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
