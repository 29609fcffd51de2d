"""What a package needs of a device besides ONNX Runtime: a library of the device's own, never a file of the package."""

from __future__ import annotations

from edgeloop.package.errors import PackageError

#: onnxruntime-extensions, with its tokenizers.
EXTENSIONS = "onnxruntime-extensions"
#: What a package may need, and how a device gets it.
INSTALL = {EXTENSIONS: "pip install 'edgeloop[processing]'"}

#: The domain of the operators of onnxruntime-extensions, and its version.
EXTENSIONS_DOMAIN, EXTENSIONS_OPSET = "ai.onnx.contrib", 1
#: Its operators that a package may use, and for each the attributes. They compute on what they are given: none runs
#: code, takes a path or reads a file. Its image decoders are not among them: one of bytes that are no JPEG ends the
#: whole process, and one of a JPEG that was cut off never ends (docs/decisions/images-are-decoded-at-the-door.md).
EXTENSION_OPERATORS = {
    "BertTokenizer": {
        "vocab_file",  # the vocabulary itself, one token a line
        "do_lower_case",
        "do_basic_tokenize",
        "strip_accents",
        "tokenize_chinese_chars",
        "unk_token",
        "sep_token",
        "pad_token",
        "cls_token",
        "mask_token",
        "suffix_indicator",
        "max_length",
    },
}
#: Bytes of an attribute: the largest vocabularies that are known have a quarter of a million tokens.
MAX_ATTRIBUTE_BYTES = 16 << 20


def read_needs(told: object) -> tuple[str, ...]:
    """What a manifest says that a device needs.

    Raises:
        PackageError: it is no list, or something is needed that this version does not know.
    """
    if not isinstance(told, list) or not all(isinstance(need, str) for need in told):
        raise PackageError("needs has to be a list of texts")
    if unknown := set(told) - set(INSTALL):
        raise PackageError(f"the package needs {min(unknown)!r:.60}, which is not known here; update edgeloop")
    return tuple(told)
