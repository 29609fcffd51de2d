"""A Hugging Face folder whose data are sentences: its own tokenizer's configuration becomes a part of the graph."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is an optional extra: make test EXTRAS=dev,torch")
transformers = pytest.importorskip("transformers", reason="an optional extra: pip install 'edgeloop[huggingface]'")
pytest.importorskip("optimum.exporters.onnx", reason="an optional extra: pip install 'edgeloop[huggingface]'")

from edgeloop.package import Package  # noqa: E402  after importorskip
from edgeloop.runtime import ModelSession, extensions  # noqa: E402
from model_export import build  # noqa: E402
from tests.doubles import processed  # noqa: E402
from tests.doubles.bert import tiny_bert  # noqa: E402

TEXTS = [processed.sentence(number % 2, 3000 + number) for number in range(120)]
STRANGE = ["Snöw, é rains today!!", "", "tax-coin (bank) 'loan'", "rain " * 40]


def test_sentences_in_probabilities_out_as_transformers_has_them(tmp_path: Path) -> None:
    if extensions.library() is None:
        pytest.skip("pip install 'edgeloop[processing]'")
    folder, vocabulary = tmp_path / "moods", tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(processed.VOCABULARY) + "\n")
    model = tiny_bert(folder, len(processed.VOCABULARY), ("dry", "wet"), seed=1, positions=20)
    tokenizer = transformers.BertTokenizerFast(vocab_file=str(vocabulary), do_lower_case=True)
    tokenizer.save_pretrained(folder)

    def by_transformers(texts: list[str]) -> Any:
        tokens = tokenizer(texts, padding=True, truncation=True, max_length=20, return_tensors="pt")
        with torch.no_grad():
            return torch.softmax(model(**tokens).logits, -1).numpy()

    labels = by_transformers(TEXTS).argmax(axis=1)
    rows = [
        json.dumps({"text": text, "label": ("dry", "wet")[label]}) for text, label in zip(TEXTS, labels, strict=True)
    ]
    (tmp_path / "data.jsonl").write_text("\n".join(rows))
    report = build(folder, tmp_path / "package", tmp_path / "data.jsonl", precision=["fp32"], reproducible=True)
    assert report.metrics["cpu-fp32"].accuracy == 1.0
    package = Package.open(tmp_path / "package")
    assert [(spec.name, spec.datatype) for spec in package.meta.inputs] == [("text", "BYTES")]
    session = ModelSession.load(package, "cpu-fp32")
    few = TEXTS[:10] + STRANGE
    (found,) = session.run({"text": np.array(few, object)}, [session.output("probabilities") or ""])
    np.testing.assert_allclose(found, by_transformers(few), atol=1e-4)
