"""From texts BYTES [N] to tokens, by the tokenizer of onnxruntime-extensions, the vocabulary inside the graph.

The tokenizer takes one text; a Loop of standard ONNX gives it each in turn and fills all up to one length.
"""

from __future__ import annotations

from collections.abc import Mapping

from onnx import GraphProto, TensorProto, helper

from edgeloop.package.needs import EXTENSIONS_DOMAIN
from model_export.processing.pieces import PREFIX, Pieces
from model_export.processing.steps import TextSteps

INPUT = "text"
OPSET = 13
TOKENIZER = "BertTokenizer"
#: The attribute of the tokenizer that holds the vocabulary.
VOCABULARY = "vocab_file"


def text_pieces(steps: TextSteps, kinds: Mapping[str, int], *, trim: bool) -> Pieces:
    """The graph.

    Args:
        steps: what is declared.
        kinds: the model's inputs that take tokens, mask and sentences, with their ``TensorProto`` data types.
        trim: whether a batch is as long as its longest text, rather than ``max_length``: for a model that looks at no
            padding.
    """
    to = Pieces()
    texts = to.take(INPUT, TensorProto.STRING, ["N"])
    count = to.add("Gather", [to.add("Shape", [texts], "shape"), to.constant("zero", 0)], "count", axis=0)
    always = to.constant("always", True, bool)
    ids = to.add("Loop", [count, always], "tokens", outputs=3, body=_one_text(steps, texts))
    found = {steps.ids: ids, steps.types: f"{ids}.1", steps.mask: f"{ids}.2"}
    length: int | str = steps.max_length
    if trim:
        # Of the mask's sums the largest; "ReduceMax" of everything is the same in every opset.
        summed = to.add("ReduceSum", [f"{ids}.2", to.constant("row", [1])], "lengths", keepdims=0)
        longest = to.add("ReduceMax", [summed], "longest", keepdims=0)
        end = to.add("Reshape", [longest, to.constant("list", [1])], "end")
        places = [to.constant("start", [0]), end, to.constant("axis", [1])]
        found = {
            name: to.add("Slice", [tensor, *places], f"trimmed.{i}") for i, (name, tensor) in enumerate(found.items())
        }
        length = "L"
    for name, kind in kinds.items():
        tensor = found[name]
        if kind != TensorProto.INT64:
            tensor = to.add("Cast", [tensor], f"typed.{name}", to=kind)
        to.give(tensor, name, kind, ["N", length])
    return to


def _one_text(steps: TextSteps, texts: str) -> GraphProto:
    """The body of the Loop: number of the text → its tokens, sentences and mask, each int64 [max_length]."""
    body = Pieces()
    number = body.take(f"{PREFIX}number", TensorProto.INT64, [])
    going = body.take(f"{PREFIX}going", TensorProto.BOOL, [])
    place = body.add("Reshape", [number, body.constant("one", [1])], "place")
    ids = body.add(
        TOKENIZER,
        [body.add("Gather", [texts, place], "text.now", axis=0)],
        "encoded",
        outputs=3,
        domain=EXTENSIONS_DOMAIN,
        **{VOCABULARY: "\n".join(steps.vocabulary)},
        do_lower_case=int(steps.lowercase),
        strip_accents=int(steps.strip_accents),
        max_length=steps.max_length,
        unk_token=steps.unknown,
        cls_token=steps.start,
        sep_token=steps.end,
        pad_token=steps.pad,
        mask_token=steps.masked,
    )
    lacking = body.add(
        "Sub", [body.constant("most", [steps.max_length]), body.add("Shape", [ids], "length")], "lacking"
    )
    pads = body.add("Concat", [body.constant("before", [0]), lacking], "pads", axis=0)
    padding = steps.vocabulary.index(steps.pad)
    body.nodes.append(helper.make_node("Identity", [going], [f"{PREFIX}goes.on"], name=f"{PREFIX}goes.on"))
    body.outputs.append(helper.make_tensor_value_info(f"{PREFIX}goes.on", TensorProto.BOOL, []))
    for i, (tensor, filler) in enumerate(((ids, padding), (f"{ids}.1", 0), (f"{ids}.2", 0))):
        full = body.add("Pad", [tensor, pads, body.constant(f"filler.{i}", filler)], f"filled.{i}")
        body.outputs.append(helper.make_tensor_value_info(full, TensorProto.INT64, [steps.max_length]))
    return body.graph("text.now")
