from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is an optional extra: make test EXTRAS=dev,torch")
transformers = pytest.importorskip("transformers", reason="an optional extra: pip install 'edgeloop[huggingface]'")
pytest.importorskip("optimum.exporters.onnx", reason="an optional extra: pip install 'edgeloop[huggingface]'")

from model_export.data import Table  # noqa: E402  after importorskip
from model_export.errors import (  # noqa: E402
    DataError,
    ExportError,
    SourceError,
    UnsupportedModelError,
    UntrustedSourceError,
)
from model_export.graphs.probe import Probe  # noqa: E402
from model_export.prepare import prepare  # noqa: E402
from model_export.sources import huggingface, open_source, parity  # noqa: E402
from tests.doubles.bert import tiny_bert  # noqa: E402

WORDS, ROWS = 40, 60
NAMES = {0: "calm", 1: "angry", 2: "asking"}


def texts(seed: int = 0) -> dict[str, Any]:
    """Token ids of texts of different lengths, padded."""
    chance = np.random.default_rng(seed)
    lengths = chance.integers(3, 13, ROWS)
    mask = (np.arange(12) < lengths[:, None]).astype(np.int64)
    return {"input_ids": chance.integers(3, WORDS, (ROWS, 12)) * mask, "attention_mask": mask}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "moods"
    tiny_bert(folder, WORDS, tuple(NAMES.values()))
    return folder


@pytest.fixture(scope="module")
def logits(bert: Path) -> Any:
    model = transformers.BertForSequenceClassification.from_pretrained(bert, local_files_only=True).eval()
    with torch.no_grad():
        return model(**{name: torch.from_numpy(array) for name, array in texts().items()}).logits.numpy()


def test_a_text_classifier_from_a_folder_gives_what_transformers_gives(bert: Path, logits: Any) -> None:
    data = Table(texts(), logits.argmax(axis=1), "moods.npz", "0" * 64)
    source = open_source(bert, data)
    assert (source.kind, source.how, source.name, source.file) == ("huggingface", "optimum", "moods", "moods")
    assert source.classes == tuple(NAMES.values()) and len(source.sha256) == 64 and not source.notes
    found = parity.check(source, data)
    assert found is not None and found.rows == ROWS
    assert found.outputs["logits"].equal_decisions == 1.0
    assert found.outputs["logits"].worst_relative is not None and found.outputs["logits"].worst_relative < 1e-4
    prepared = prepare(source, data, labels=None, given={})
    assert prepared.class_names == tuple(NAMES.values()) and prepared.head is not None
    assert {spec.name: spec.shape for spec in prepared.inputs} == {"input_ids": (-1,), "attention_mask": (-1,)}
    # Texts of another length, and labels by name.
    got = Probe(prepared.model).run({name: array[:, :7] for name, array in texts(1).items()})
    assert got["logits"].shape == (ROWS, 3)
    named = Table(texts(), np.array([NAMES[i] for i in logits.argmax(axis=1)]), "moods.npz", "0" * 64)
    assert (prepare(source, named, labels=None, given={}).truth == prepared.truth).all()


@pytest.mark.skipif("EDGELOOP_SOAK" not in os.environ, reason="torch.export takes long: EDGELOOP_SOAK=1")
def test_where_optimum_gives_another_model_the_next_way_is_taken(
    bert: Path, logits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = huggingface._by_optimum

    def wrong(*arguments: Any) -> Any:
        model = right(*arguments)
        bias = next(t for t in model.graph.initializer if t.name.endswith("classifier.bias"))
        bias.raw_data = np.array([5, 0, 0], np.float32).tobytes()
        return model

    monkeypatch.setattr(huggingface, "_by_optimum", wrong)
    data = Table(texts(), logits.argmax(axis=1), "moods.npz", "0" * 64)
    source = open_source(bert, data)
    assert source.how == "torch.export"
    assert "optimum: output logits differs from the source's in 100.0% of 60 rows" in source.notes[0]
    assert parity.check(source, data) is not None
    got = Probe(source.model).run({name: array[:, :7] for name, array in texts(1).items()})
    assert got["logits"].shape == (ROWS, 3)


def test_a_picture_classifier_from_a_folder(tmp_path: Path) -> None:
    config = transformers.ViTConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=16,
        patch_size=8,
        id2label=NAMES,
        initializer_range=0.3,
    )
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    pictures = np.random.default_rng(0).normal(size=(ROWS, 3, 16, 16)).astype(np.float32)
    data = Table({"pixel_values": pictures}, np.arange(ROWS) % 3, "pictures.npz", "0" * 64)
    source = open_source(tmp_path / "vit", data)
    found = parity.check(source, data)
    assert found is not None and found.outputs["logits"].equal_decisions == 1.0
    assert prepare(source, data, labels=None, given={}).head is not None


@pytest.mark.parametrize(
    ("change", "error", "words", "hint"),
    [
        ({"auto_map": {"AutoModel": "modeling.Mine"}}, SourceError, "code of its own", "give the .onnx file"),
        ({"architectures": ["BertForMaskedLM"]}, UnsupportedModelError, "BertForMaskedLM", "text-classification"),
        ({"problem_type": "multi_label_classification"}, UnsupportedModelError, "multi label", "single_label"),
        ({"id2label": {"0": "score"}}, UnsupportedModelError, "1 class", "two classes"),
        ({"model_type": "nobody-knows-it"}, SourceError, "cannot be loaded", "this version of transformers"),
    ],
    ids=["remote code", "another task", "several labels", "regression", "unknown architecture"],
)
def test_folders_that_are_refused(
    bert: Path, tmp_path: Path, change: dict[str, Any], error: type[ExportError], words: str, hint: str
) -> None:
    folder = tmp_path / "moods"
    shutil.copytree(bert, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    (folder / "modeling.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(error, match=words) as caught:
        open_source(folder, Table(texts(), np.arange(ROWS) % 3, "moods.npz", ""))
    assert hint in caught.value.hint
    assert not (tmp_path / "ran").exists()


def test_weights_have_to_be_there_and_safe_or_trusted(bert: Path, logits: Any, tmp_path: Path) -> None:
    data = Table(texts(), logits.argmax(axis=1), "moods.npz", "")
    folder = tmp_path / "moods"
    shutil.copytree(bert, folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(SourceError, match="no weights"):
        open_source(folder, data)
    model = transformers.BertForSequenceClassification.from_pretrained(bert, local_files_only=True)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(UntrustedSourceError, match="is a pickle") as caught:
        open_source(folder, data)
    assert "--trust-source" in caught.value.hint
    assert open_source(folder, data, trust_source=True).how == "optimum"


def test_data_without_the_models_input_say_what_it_takes(bert: Path) -> None:
    with pytest.raises(DataError, match="no data for input_ids") as caught:
        open_source(bert, Table({"a": np.zeros(60), "b": np.zeros(60)}, np.zeros(60, np.int64), "moods.csv", ""))
    assert "attention_mask" in caught.value.hint
