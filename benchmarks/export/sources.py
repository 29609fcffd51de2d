"""The models that everybody starts from, and their rows; each is made once and kept beside the environments."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.export import images, texts
from benchmarks.kit.environments import CACHE

Array = npt.NDArray[Any]
Parts = Mapping[str, Mapping[str, Array]]
HERE = Path(__file__).parent
_TRAINING_LIMIT_S = 1800.0


@dataclass(frozen=True)
class Material:
    """A float32 model, and rows that it was not trained on.

    Attributes:
        folder: ``model.onnx``, ``build.npz`` for whoever quantizes, ``test.npz`` for the judge alone.
    """

    name: str
    folder: Path

    @property
    def model(self) -> Path:
        """float32 ONNX."""
        return self.folder / "model.onnx"

    @property
    def build(self) -> Path:
        """Rows of each input, and ``label``."""
        return self.folder / "build.npz"

    def test(self) -> dict[str, Array]:
        """Rows of each input, and ``label``."""
        with np.load(self.folder / "test.npz") as given:
            return dict(given)


def networks(torch_python: Path) -> dict[str, Callable[[], Material]]:
    """Name → maker, of the networks that PyTorch trains."""
    return {
        "mobilenet_v2": lambda: _network("mobilenet_v2", images.parts, images.__file__, torch_python),
        "resnet_18": lambda: _network("resnet_18", images.parts, images.__file__, torch_python),
        "bert": lambda: _network("bert", lambda: texts.encoded(texts.rows()), texts.__file__, torch_python),
    }


def trees() -> dict[str, Callable[[], Material]]:
    """Name → maker, of boosted trees on scikit-learn's tables."""
    return {"trees_digits": lambda: _trees("digits"), "trees_cancer": lambda: _trees("breast_cancer")}


def _network(name: str, parts: Callable[[], Parts], made_by: str, python: Path) -> Material:
    def train(folder: Path) -> None:
        subprocess.run([str(python), str(HERE / "nets.py"), name, str(folder)], check=True, timeout=_TRAINING_LIMIT_S)

    return _kept(name, [Path(made_by), HERE / "nets.py"], parts, train)


def _trees(table: str) -> Material:
    import skl2onnx
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn import datasets
    from sklearn.ensemble import GradientBoostingClassifier

    x, y = getattr(datasets, f"load_{table}")(return_X_y=True)
    x = x.astype(np.float32)
    part = np.random.default_rng(0).permutation(len(y)) % 10
    where = {"train": part < 5, "build": (part >= 5) & (part < 8), "test": part >= 8}
    parts = {name: {"input": x[chosen], "label": y[chosen].astype(np.int64)} for name, chosen in where.items()}

    def train(folder: Path) -> None:
        fitted = GradientBoostingClassifier(n_estimators=60, random_state=0).fit(*parts["train"].values())
        types = [("input", FloatTensorType([None, x.shape[1]]))]
        opsets = {"": 17, "ai.onnx.ml": 3}
        model = skl2onnx.to_onnx(fitted, initial_types=types, options={"zipmap": False}, target_opset=opsets)
        (folder / "model.onnx").write_bytes(model.SerializeToString())

    return _kept(f"trees_{table}", [Path(__file__)], lambda: parts, train)


def _kept(name: str, made_by: list[Path], parts: Callable[[], Parts], train: Callable[[Path], None]) -> Material:
    recipe = hashlib.sha256(b"".join(path.read_bytes() for path in made_by)).hexdigest()[:16]
    folder = CACHE / "models" / f"{name}-{recipe}"
    if not folder.exists():
        making = folder.with_suffix(".making")
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(parents=True)
        print(f"training {name} …", flush=True)
        for part, arrays in parts().items():
            np.savez(making / f"{part}.npz", **arrays)
        train(making)
        making.rename(folder)
    return Material(name, folder)
