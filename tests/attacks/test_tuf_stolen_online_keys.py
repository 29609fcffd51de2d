"""All of the hub's keys are stolen, and broker and hub with them: what the thief can give a device is another head.

Every release here is signed by true keys of `retrained`, `channels`, `snapshot` and `timestamp`, and offered in the
true channel. The publisher's key is not among them. `tests/unit/package/test_package_difference.py` has the other
things that a retrained release may not change.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgeloop.package import Package
from edgeloop.trust import names, repository
from edgeloop.trust.names import ReleasePath
from tests.doubles.packages import make_package
from tests.integration.trusted_device import World, world_with_release

Running = tuple[World, Package, ReleasePath]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with world_with_release(tmp_path_factory.mktemp("stolen"), "other", audit_in_child=True) as made:
        yield made


def offer_as_retrained(running: Running, package: Package) -> None:
    world, _, path = running
    world.hub.add(package)
    world.offer(package, world.fleet.retrain(path, package.digest, len(package.index.to_bytes())))


def change_backbone(root: Path) -> None:
    (file,) = root.glob("shared_assets/*/body.weight.bin")
    values = np.fromfile(file, "<f4")
    file.write_bytes((values * 0.5).astype("<f4").tobytes())


def change_graph(root: Path) -> None:
    model = onnx.load(root / "cpu-fp32" / "model.onnx", load_external_data=False)
    model.graph.node[1].op_type = "Sigmoid"
    (root / "cpu-fp32" / "model.onnx").write_bytes(model.SerializeToString())


def add_variant(root: Path) -> None:
    shutil.copytree(root / "cpu-fp32", root / "cpu-int8")

    def add(manifest: dict[str, Any]) -> None:
        variants = manifest["components"]["model"]["variants"]
        variants["cpu-int8"] = {**variants["cpu-fp32"], "variant_directory": "cpu-int8"}

    in_manifest(root, add)


def in_manifest(root: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    manifest = json.loads((root / "manifest.json").read_bytes())
    change(manifest)
    (root / "manifest.json").write_text(json.dumps(manifest, separators=(",", ":")))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (change_backbone, "body.weight.bin is not the file of its base"),
        (change_graph, "cpu-fp32/model.onnx is not the file of its base"),
        (add_variant, "its variants are cpu-fp32, cpu-int8"),
    ],
)
def test_a_retrained_release_that_changes_more_than_the_head(
    running: Running, tmp_path: Path, change: Callable[[Path], None], said: str
) -> None:
    world, first, _ = running
    made = world.successor(first, tmp_path)
    shutil.copytree(made.root, tmp_path / "changed")
    change(tmp_path / "changed")
    offer_as_retrained(running, Package.open(tmp_path / "changed"))
    world.refused(said, first)


def test_another_model_as_a_retrained_release(running: Running, tmp_path: Path) -> None:
    """A whole other network, under the name of the model that the device runs."""
    world, first, _ = running
    offer_as_retrained(running, make_package(tmp_path / "evil", version="9", seed=8))
    world.refused("manifest.additional_metadata.edgeloop", first)


def test_a_true_release_of_another_model(running: Running, tmp_path: Path) -> None:
    """Its publisher has signed it, for other devices; the thief has the channel name it."""
    world, first, _ = running
    other = make_package(tmp_path / "other", name="other", seed=9)
    world.offer(other, world.publish(other))
    world.refused("it is a release of other, and this device runs digits", first)


def test_a_counter_that_no_publisher_has_signed(running: Running, tmp_path: Path) -> None:
    """Higher numbers than the publisher has reached: there is no base that the publisher's role names."""
    world, first, _ = running
    ahead = world.successor(first, tmp_path)
    world.offer(ahead, world.fleet.retrain(ReleasePath("digits", 99), ahead.digest, len(ahead.index.to_bytes())))
    world.refused("releases/digits/99: no role names it", first)
    world.offer(ahead, ReleasePath("digits", 100))
    world.refused("releases/digits/100: no role names it", first)


def test_a_publishers_role_signed_with_the_hubs_keys(running: Running, tmp_path: Path) -> None:
    world, first, _ = running
    role, theirs = names.release_role("digits"), world.successor(first, tmp_path)
    draft = world.fleet.draft(role)
    named = repository.add_release(draft.signed, "digits", theirs.digest, len(theirs.index.to_bytes()))
    world.fleet.put(role, draft, *world.fleet.online.values())
    world.offer(theirs, named)
    world.refused("was signed by 0/1 keys", first)


def test_what_is_left_to_the_thief_is_another_head(running: Running, tmp_path: Path) -> None:
    """The bound of this attack, and the end of the module: it is taken, tested and watched like any retrained head."""
    world, first, path = running
    role = names.release_role("digits")
    world.fleet.put(role, world.fleet.draft(role))  # the publisher signs anew; the thief's version was never believed
    head = world.successor(first, tmp_path)
    world.install(head, world.fleet.retrain(path, head.digest, len(head.index.to_bytes())))
