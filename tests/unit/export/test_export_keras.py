from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model_export.data import Table
from model_export.errors import MissingLibraryError, UntrustedSourceError
from model_export.prepare import prepare
from model_export.sources import open_source, parity
from tests.doubles.digits import splits

X, Y = splits().validation.x.reshape(-1, 8, 8, 1), splits().validation.y
DATA = Table({"image": X}, Y, "digits.npz", "0" * 64)


def test_what_can_hold_code_is_loaded_only_on_trust(tmp_path: Path) -> None:
    (tmp_path / "model.h5").write_bytes(b"")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"")
    for name in ("model.h5", "saved"):
        with pytest.raises(UntrustedSourceError, match="can hold code") as caught:
            open_source(tmp_path / name, DATA)
        assert "--trust-source" in caught.value.hint


def test_without_tensorflow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tensorflow", None)
    (tmp_path / "model.keras").write_bytes(b"")
    with pytest.raises(MissingLibraryError) as caught:
        open_source(tmp_path / "model.keras", DATA)
    assert "edgeloop[keras]" in caught.value.hint


def test_a_keras_model_from_its_file_from_memory_and_as_a_saved_model(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="a large optional extra: pip install 'edgeloop[keras]'")
    pytest.importorskip("tf2onnx", reason="a large optional extra: pip install 'edgeloop[keras]'")
    import keras

    layers = [
        keras.layers.Input((8, 8, 1), name="image"),
        keras.layers.Conv2D(8, 3, activation="relu"),
        keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.5),
        keras.layers.Flatten(),
        keras.layers.Dense(10, activation="softmax"),
    ]
    model = keras.Sequential(layers)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(X, Y, epochs=2, verbose=0)
    model.save(tmp_path / "digits.keras")
    model.export(tmp_path / "saved", verbose=False)
    expected = model.predict(X, verbose=0).argmax(axis=1)
    for source in (tmp_path / "digits.keras", model, tmp_path / "saved"):
        found = open_source(source, DATA, trust_source=source == tmp_path / "saved")
        assert (found.kind, found.how) == ("keras", "tf2onnx")
        same = parity.check(found, DATA)
        assert same is not None and len(same.outputs) == 1
        prepared = prepare(found, DATA, labels=None, given={})
        assert prepared.head is not None and prepared.model.graph.input[0].name == prepared.inputs[0].name
        assert len(np.unique(expected)) > 5
