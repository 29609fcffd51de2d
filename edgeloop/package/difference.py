"""What a retrained release may change of the release that it comes from: the head's values, and what tells of them.

A key that the hub holds signs retrained releases. Whoever steals it can give a model another head, and nothing else:
the agent holds every file of the release against those of its base, which a person has signed. Free are the version,
the head's values, the reference outputs that follow from them, the profile, the metrics and the lineage; whatever is
not named here has to stay as it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeloop.package.index import Index
from edgeloop.package.manifest import COMPONENT, WEIGHTS_OPTION, HeadSpec, Manifest, asset_folder
from edgeloop.records import dataclass

#: So many differences are told; a release of another model has thousands.
MOST_TOLD = 10
#: Fields of edgeloop's part of the manifest that tell of the head.
FREE = ("metrics", "lineage", "profile")


@dataclass(frozen=True)
class Base:
    """The release that another one was retrained from: its index and its manifest."""

    index: Index
    manifest: Manifest


def differences(base: Base, index: Index, manifest: Manifest) -> list[str]:
    """What a retrained release changes that it may not; empty when its head alone is another.

    Graphs have to be the same bytes: the head's tensors are files of their own in every package.

    Args:
        base: the release that it comes from.
        index: of the retrained release.
        manifest: of the retrained release.
    """
    if (head := base.manifest.meta.head) is None:
        return ["the release that it was retrained from has no head: nothing of it may change"]
    if list(manifest.variants) != list(base.manifest.variants):
        told = ", ".join(manifest.variants)
        return [f"its variants are {told}; those of its base are {', '.join(base.manifest.variants)}"]
    problems = list(_changed_fields(_fixed(base.manifest.raw), _fixed(manifest.raw), "manifest"))
    if not problems:  # from here on, the two manifests have the same folders and tensors
        problems = list(_changed_files(base, index, manifest, head))
    if len(problems) > MOST_TOLD:
        problems = [*problems[:MOST_TOLD], f"and {len(problems) - MOST_TOLD} further differences"]
    return problems


def shared_head(root: Path, manifest: Manifest, variants: Sequence[str]) -> list[str]:
    """Tensors besides the head's that lie in the head's files: they would change with it.

    Args:
        root: folder of the release; its graphs were audited.
        manifest: of the release.
        variants: names of the variants whose files are there.
    """
    import onnx

    from edgeloop.package.audit_graph import tensors_of

    if (head := manifest.meta.head) is None:
        return []
    own = {f"{name}.bin": name for name in (head.weight, head.bias)}
    problems = []
    for variant in variants:
        path = manifest.variants[variant].model_file
        model = onnx.ModelProto()
        model.ParseFromString((root / path).read_bytes())
        for tensor in tensors_of(model.graph):
            location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
            if location in own and tensor.name != own[location]:
                problems.append(f"{path}: the tensor {tensor.name} lies in {location}, and would change with the head")
    return problems


def _fixed(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest without what a new head may change. The two were parsed: every place that is reached here is there."""
    fixed: dict[str, Any] = json.loads(json.dumps(raw))
    del fixed["package_version"]
    own = fixed["additional_metadata"]["edgeloop"]
    for name in FREE:
        own.pop(name, None)
    del own["golden"]["outputs"]
    for variant in fixed["components"][COMPONENT]["variants"].values():
        options = variant["executor_info"]["ort"].get("session_options", {})
        if WEIGHTS_OPTION in options:
            options[WEIGHTS_OPTION] = "the tensors are compared one by one"
    return fixed


def _changed_fields(base: Any, new: Any, where: str) -> Iterator[str]:
    if isinstance(base, dict) and isinstance(new, dict):
        for key in sorted(base.keys() | new.keys()):
            if key not in base or key not in new:
                yield f"{where}: {key} was {'added' if key in new else 'removed'}"
            else:
                yield from _changed_fields(base[key], new[key], f"{where}.{key}")
    elif type(base) is not type(new) or base != new:
        yield f"{where} is {json.dumps(new):.80}; its base has {json.dumps(base):.80}"


def _changed_files(base: Base, index: Index, manifest: Manifest, head: HeadSpec) -> Iterator[str]:
    """Files that differ, or are there in one of the two alone."""
    folders = {(variant.directory, variant.directory) for variant in manifest.variants.values()}
    folders |= {
        (asset_folder(old), asset_folder(new))
        for old, new in (
            (base.manifest.meta.golden["inputs"], manifest.meta.golden["inputs"]),
            (base.manifest.meta.validation, manifest.meta.validation),
            *((v.weights_uri, manifest.variants[name].weights_uri) for name, v in base.manifest.variants.items()),
        )
        if old is not None and new is not None
    }
    weights = {asset_folder(v.weights_uri) for v in manifest.variants.values() if v.weights_uri is not None}
    head_files = {f"{head.weight}.bin", f"{head.bias}.bin"}
    for old_folder, new_folder in sorted(folders):
        old, new = _inside(base.index, old_folder), _inside(index, new_folder)
        for name in sorted(old.keys() | new.keys()):
            if name not in old or name not in new:
                yield f"{new_folder}/{name} was {'added' if name in new else 'removed'}"
            elif new_folder in weights and name in head_files:
                if old[name][1] != new[name][1]:
                    yield f"{new_folder}/{name} has {new[name][1]:,} bytes; the head of its base has {old[name][1]:,}"
            elif old[name] != new[name]:
                yield f"{new_folder}/{name} is not the file of its base"


def _inside(index: Index, folder: str) -> dict[str, tuple[str, int]]:
    """Files of a folder: path below it → (SHA-256, bytes)."""
    return {
        entry.path.removeprefix(f"{folder}/"): (entry.sha256, entry.size)
        for entry in index.entries
        if entry.path.startswith(f"{folder}/")
    }
