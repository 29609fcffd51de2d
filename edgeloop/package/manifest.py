"""The manifest: ONNX Runtime's own document, and edgeloop's part of it in ``additional_metadata.edgeloop``.

Reading is pure: bytes in, values out. Nothing here looks at a disk.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from typing import Any

from edgeloop.package.documents import read_json
from edgeloop.package.errors import PackageError
from edgeloop.package.index import Index, IndexEntry, check_path
from edgeloop.package.needs import read_needs
from edgeloop.package.picture import PictureSpec, read_picture
from edgeloop.package.provider_options import check_provider_options
from edgeloop.records import dataclass

COMPONENT = "model"
MANIFEST = "manifest.json"
FORMAT = 1
#: The one session option that a package may set: where a variant's tensors lie.
WEIGHTS_OPTION = "session.model_external_initializers_file_folder_path"
ROLES = ("probabilities", "logits", "label", "features", "other")
ACTIVATIONS = ("softmax", "sigmoid", "identity")

MAX_TEXT = 1000
"""Characters of a label."""
#: Control characters, ends of lines, overrides of the direction of writing, halves of pairs.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_URI = re.compile(r"sha256:[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}")
_TOP = {"schema_version", "package_name", "package_version", "description", "layout", "components", "shared_assets"}


@dataclass(frozen=True)
class TensorSpec:
    """An input: its name, its Open Inference Protocol datatype, and its shape with -1 for what may vary."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class OutputSpec:
    """An output; ``role`` says what it means: probabilities, logits, label, features or other."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    role: str


@dataclass(frozen=True)
class HeadSpec:
    """The last linear layer: names of its initializers, what follows it, and its layout.

    Attributes:
        weight: initializer of the weight.
        bias: initializer of the bias, float32 [K].
        activation: softmax, sigmoid or identity.
        transposed: the weight is stored [K, F] rather than [F, K].
    """

    weight: str
    bias: str
    activation: str
    transposed: bool


@dataclass(frozen=True)
class VariantSpec:
    """One build of the model.

    Attributes:
        name: ``<device>-<precision>``.
        directory: its folder, relative to the package.
        ep: execution provider that it is made for, by ONNX Runtime's name.
        device: cpu, gpu or npu.
        precision: fp32, fp16, int8, …
        model_file: path of the graph, relative to the package.
        weights_uri: shared asset with its tensors, or None.
        tensors: names of the files in that asset that it needs.
        provider_options: options of its provider that the package sets; those of `provider_options.PACKAGED` alone.
    """

    name: str
    directory: str
    ep: str
    device: str
    precision: str
    model_file: str
    weights_uri: str | None
    tensors: tuple[str, ...]
    provider_options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Metadata:
    """``additional_metadata.edgeloop``: see docs/reference/package.md for each field."""

    task: str
    labels: tuple[str, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[OutputSpec, ...]
    features: str | None
    head: HeadSpec | None
    golden: Mapping[str, str]
    profile: Mapping[str, str] | None
    validation: str | None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    lineage: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    picture: PictureSpec | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def output(self, role: str) -> str | None:
        """Name of the first output with a role, or None."""
        return next((output.name for output in self.outputs if output.role == role), None)

    def to_json(self) -> dict[str, Any]:
        """As it stands in the manifest."""
        head = self.head and {
            "weight": self.head.weight,
            "bias": self.head.bias,
            "activation": self.head.activation,
            "transposed": self.head.transposed,
        }
        return {
            **self.extra,
            "format": FORMAT,
            "task": self.task,
            "labels": list(self.labels),
            "inputs": [{"name": t.name, "datatype": t.datatype, "shape": list(t.shape)} for t in self.inputs],
            "outputs": [
                {"name": t.name, "datatype": t.datatype, "shape": list(t.shape), "role": t.role} for t in self.outputs
            ],
            "features": self.features,
            "head": head,
            "golden": dict(self.golden),
            "profile": None if self.profile is None else dict(self.profile),
            "validation": self.validation,
            "metrics": dict(self.metrics),
            "lineage": dict(self.lineage),
            **({"needs": list(self.needs)} if self.needs else {}),
            **({"picture": self.picture.to_json()} if self.picture else {}),
        }


@dataclass(frozen=True)
class Manifest:
    """A manifest that has been checked.

    Attributes:
        name: of the package.
        version: of the package.
        variants: by name, in the manifest's order.
        meta: edgeloop's part.
        raw: the whole document.
    """

    name: str
    version: str
    variants: Mapping[str, VariantSpec]
    meta: Metadata
    raw: Mapping[str, Any]

    @classmethod
    def parse(cls, data: bytes) -> Manifest:
        """Read ``manifest.json``.

        Raises:
            PackageError: it is no manifest that ONNX Runtime and edgeloop both read.
        """
        raw = read_json(data, MANIFEST)
        if unknown := set(raw) - _TOP - {"additional_metadata"}:
            raise PackageError(f"{MANIFEST}: ONNX Runtime refuses the field {min(unknown)!r}; use additional_metadata")
        if not str(raw.get("schema_version", "")).startswith("1."):
            raise PackageError(f"{MANIFEST}: schema_version is {raw.get('schema_version')!r}; 1.x is read")
        if raw.get("layout", "portable") != "portable" or raw.get("shared_assets"):
            raise PackageError(f"{MANIFEST}: layout has to be portable, with no shared_assets elsewhere")
        for key in ("package_name", "package_version"):
            if not isinstance(raw.get(key), str) or not _NAME.fullmatch(raw[key]):
                raise PackageError(
                    f"{MANIFEST}: {key} has to be 1 to 64 letters, digits and _.+-, not {raw.get(key)!r}"
                )
        components = _map(raw, "components")
        if set(components) != {COMPONENT} or not isinstance(components[COMPONENT], dict):
            raise PackageError(
                f"{MANIFEST}: there has to be one component, {COMPONENT!r}, written in the manifest itself"
            )
        variants = _map(components[COMPONENT], "variants")
        if not 0 < len(variants) <= 64:
            raise PackageError(f"{MANIFEST}: the component has {len(variants)} variants; 1 to 64 are allowed")
        meta = _map(_map(raw, "additional_metadata"), "edgeloop")
        try:
            found = {str(name): _variant(str(name), body) for name, body in variants.items()}
            own = _metadata(meta)
            _check_folders(found)
            _check_head(own.head, found)
            return cls(raw["package_name"], raw["package_version"], found, own, raw)
        except (KeyError, TypeError, AttributeError) as error:
            raise PackageError(f"{MANIFEST}: a field is missing or of the wrong kind: {error}") from error


def asset_folder(uri: str) -> str:
    """Where a shared asset lies, relative to the package."""
    if not _URI.fullmatch(uri):
        raise PackageError(f"{uri[:80]!r} is no shared asset: sha256: and 64 hex digits")
    return f"shared_assets/{uri.replace(':', '-')}"


def required_paths(manifest: Manifest, index: Index, variants: Sequence[str] | None = None) -> tuple[IndexEntry, ...]:
    """What a device fetches: the manifest, the variants' graphs and tensors, golden cases and profile.

    Never the validation set, which is the hub's.

    Args:
        manifest: of the release.
        index: of the release.
        variants: names of the variants that the device may run; None: all.

    Raises:
        PackageError: the index lacks a file that the manifest needs, or a variant is not there.
    """
    chosen = list(manifest.variants) if variants is None else list(variants)
    if missing := set(chosen) - set(manifest.variants):
        raise PackageError(f"there is no variant {min(missing)!r}; there are {', '.join(manifest.variants)}")
    wanted = {MANIFEST}
    folders = [asset_folder(uri) for uri in (*manifest.meta.golden.values(), *(manifest.meta.profile or {}).values())]
    for name in chosen:
        variant = manifest.variants[name]
        wanted.add(variant.model_file)
        if variant.weights_uri is not None:
            wanted |= {f"{asset_folder(variant.weights_uri)}/{tensor}" for tensor in variant.tensors}
    if absent := wanted - set(index.by_path):
        raise PackageError(f"the index lacks {min(absent)}, which the manifest needs")
    for folder in (*folders, *(manifest.variants[name].directory for name in chosen)):
        inside = {entry.path for entry in index.entries if entry.path.startswith(f"{folder}/")}
        if not inside:
            raise PackageError(f"the index lacks every file of {folder}, which the manifest needs")
        wanted |= inside
    return tuple(index.by_path[path] for path in sorted(wanted))


def _map(parent: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = parent.get(key)
    if not isinstance(value, dict):
        raise PackageError(f"{MANIFEST}: {key} is missing, or no object")
    return value


def _variant(name: str, body: Any) -> VariantSpec:
    if not _NAME.fullmatch(name):
        raise PackageError(f"{MANIFEST}: {name!r} is no name of a variant")
    allowed = {"variant_directory", "ep", "device", "executor_info", "additional_metadata", "compatibility_string"}
    if unknown := set(body) - allowed:
        raise PackageError(f"{MANIFEST}: variant {name} has the unknown field {min(unknown)!r}")
    ort = body["executor_info"]["ort"]
    if set(body["executor_info"]) != {"ort"} or not isinstance(ort, dict):
        raise PackageError(f"{MANIFEST}: variant {name}: executor_info has to hold ort alone, written in the manifest")
    if unknown := set(ort) - {"model_file", "session_options", "provider_options"}:
        raise PackageError(f"{MANIFEST}: variant {name}: a package may not set {min(unknown)}")
    options = ort.get("session_options", {})
    if unknown := set(options) - {WEIGHTS_OPTION}:
        raise PackageError(f"{MANIFEST}: variant {name}: a package may not set the session option {min(unknown)!r}")
    own = body["additional_metadata"]["edgeloop"]
    directory = check_path(body.get("variant_directory", name))
    weights = options.get(WEIGHTS_OPTION)
    if weights is not None:
        asset_folder(weights)
    if not isinstance(own["tensors"], list) or "/" in directory or directory == "shared_assets":
        raise PackageError(
            f"{MANIFEST}: variant {name}: tensors have to be a list, variant_directory a folder of its own"
        )
    model_file = check_path(ort["model_file"])
    if "/" in model_file or not model_file.endswith(".onnx"):  # ONNX Runtime reads another format from other names
        raise PackageError(f"{MANIFEST}: variant {name}: model_file {model_file!r} has to be a plain name with .onnx")
    tensors = tuple(check_path(tensor) for tensor in own["tensors"])
    if any("/" in tensor for tensor in tensors) or (tensors and weights is None):
        raise PackageError(f"{MANIFEST}: variant {name}: tensors have to be names of files in the weights' asset")
    return VariantSpec(
        name=name,
        directory=directory,
        ep=str(body["ep"]),
        device=str(body["device"]),
        precision=str(own["precision"]),
        model_file=f"{directory}/{model_file}",
        weights_uri=weights,
        tensors=tensors,
        provider_options=check_provider_options(name, str(body["ep"]), ort.get("provider_options", {})),
    )


def _check_folders(variants: Mapping[str, VariantSpec]) -> None:
    if len({variant.directory.casefold() for variant in variants.values()}) != len(variants):
        raise PackageError(f"{MANIFEST}: two variants share a variant_directory; each needs its own")


def _check_head(head: HeadSpec | None, variants: Mapping[str, VariantSpec]) -> None:
    """A new head is written to files of these names: they have to be tensors of every variant, and no other path."""
    if head is None:
        return
    for variant in variants.values():
        if lacking := {f"{head.weight}.bin", f"{head.bias}.bin"} - set(variant.tensors):
            raise PackageError(f"{MANIFEST}: the head's {min(lacking)!r} is no tensor of variant {variant.name}")


def _metadata(meta: Mapping[str, Any]) -> Metadata:
    if meta.get("format") != FORMAT:
        raise PackageError(
            f"{MANIFEST}: edgeloop's format is {meta.get('format')!r}; {FORMAT} is read. Update edgeloop"
        )
    if wrong_kind := [key for key in ("labels", "inputs", "outputs") if not isinstance(meta[key], list)]:
        raise PackageError(f"{MANIFEST}: {wrong_kind[0]} has to be a list")
    outputs = tuple(OutputSpec(str(t["name"]), str(t["datatype"]), _shape(t), str(t["role"])) for t in meta["outputs"])
    if wrong := {output.role for output in outputs} - set(ROLES):
        raise PackageError(f"{MANIFEST}: an output has the role {min(wrong)!r}; it has to be one of {', '.join(ROLES)}")
    known = {"format", "task", "labels", "inputs", "outputs", "features", "head", "golden", "profile", "validation"}
    known |= {"metrics", "lineage", "needs", "picture"}
    golden = {str(key): str(uri) for key, uri in meta["golden"].items()}
    profile = None if meta["profile"] is None else {str(key): str(uri) for key, uri in meta["profile"].items()}
    if set(golden) != {"inputs", "outputs"} or (profile is not None and set(profile) != {"bins", "reference"}):
        raise PackageError(f"{MANIFEST}: golden needs inputs and outputs, profile bins and reference")
    uris: Iterable[str] = (*golden.values(), *(profile or {}).values())
    validation = meta.get("validation")
    for uri in (*uris, *([] if validation is None else [validation])):
        asset_folder(uri)
    return Metadata(
        task=check_text(meta["task"]),
        labels=tuple(check_text(label) for label in meta["labels"]),
        inputs=tuple(TensorSpec(str(t["name"]), str(t["datatype"]), _shape(t)) for t in meta["inputs"]),
        outputs=outputs,
        features=None if meta["features"] is None else str(meta["features"]),
        head=None if meta["head"] is None else _head(meta["head"]),
        golden=golden,
        profile=profile,
        validation=validation,
        metrics=dict(_map(meta, "metrics")),
        lineage=dict(_map(meta, "lineage")),
        needs=read_needs(meta.get("needs", [])),
        picture=None if meta.get("picture") is None else read_picture(_map(meta, "picture")),
        extra={key: value for key, value in meta.items() if key not in known},
    )


def check_text(value: object) -> str:
    """What people are shown, such as a label.

    Raises:
        PackageError: it has a control character, which could command a terminal or turn a line around, or is too long.
    """
    text = str(value)
    if len(text) > MAX_TEXT or _UNSEEN.search(text):
        raise PackageError(
            f"{MANIFEST}: {text[:40]!r} has to be text of at most {MAX_TEXT} characters, without control characters"
        )
    return text


def _head(head: Mapping[str, Any]) -> HeadSpec:
    if head["activation"] not in ACTIVATIONS or not isinstance(head["transposed"], bool):
        raise PackageError(f"{MANIFEST}: the head's activation has to be one of {', '.join(ACTIVATIONS)}")
    return HeadSpec(str(head["weight"]), str(head["bias"]), head["activation"], head["transposed"])


def _shape(tensor: Mapping[str, Any]) -> tuple[int, ...]:
    shape = tensor["shape"]
    if not isinstance(shape, list) or not all(type(n) is int and -1 <= n <= 1 << 31 for n in shape) or len(shape) > 16:
        raise PackageError(
            f"{MANIFEST}: {tensor['name']}: a shape is a list of at most 16 lengths, -1 for what may vary"
        )
    return tuple(shape)
