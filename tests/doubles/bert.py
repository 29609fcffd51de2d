"""A BERT of one layer, 32 wide, in a Hugging Face folder: random, but as sure of itself as one that was trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def tiny_bert(folder: Path, words: int, labels: Sequence[str], *, seed: int = 0, positions: int = 32) -> Any:
    """Write a text classifier's configuration and weights, and return it in evaluation mode.

    Args:
        folder: that it is saved in.
        words: of its vocabulary.
        labels: names of its classes.
        seed: of the weights.
        positions: tokens of the longest text.
    """
    import torch
    import transformers

    torch.manual_seed(seed)
    config = transformers.BertConfig(
        vocab_size=words,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=positions,
        # Wide enough that the scores of a network that nobody trained differ.
        initializer_range=0.4,
        id2label=dict(enumerate(labels)),
        label2id={name: index for index, name in enumerate(labels)},
    )
    model = transformers.BertForSequenceClassification(config).eval()
    model.save_pretrained(folder)
    return model
