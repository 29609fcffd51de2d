"""What is declared of what comes before and after a model: typed, as JSON both ways, without a graph yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from edgeloop.package.picture import LARGEST_SIDE, Fit, PictureSpec, Resample

Layout = Literal["NCHW", "NHWC", "NHW", "flat"]
Colours = Literal["rgb", "bgr", "grey"]
#: Tokens of a text, at most.
LONGEST = 1 << 14


@dataclass(frozen=True)
class ImageSteps:
    """From a picture to the model's input: ``[image]``. The words are those of the agent's ``[sources.picture]``.

    Attributes:
        height: of what the model sees, pixels.
        width: of what the model sees, pixels.
        fit: another aspect ratio: its largest middle is resized (``crop``), or the whole is stretched.
        shorter: with ``crop``: the shorter side is brought to so many pixels first, and the middle taken of that; 0:
            to what covers height and width.
        resample: what stands between pixels.
        colours: channels and their order.
        scale: factor for pixels of 0 to 255.
        mean: subtracted after scaling: one number, or one a channel.
        std: divided by after that: one number, or one a channel.
        layout: [N, C, H, W], [N, H, W, C], [N, H, W] or [N, H·W·C].
    """

    height: int
    width: int
    fit: Fit = "crop"
    shorter: int = 0
    resample: Resample = "linear"
    colours: Colours = "rgb"
    scale: float = 1 / 255
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    layout: Layout = "NCHW"

    def __post_init__(self) -> None:
        """Hold the fields to one another."""
        _one_of("fit", self.fit, get_args(Fit))
        _one_of("resample", self.resample, get_args(Resample))
        _one_of("colours", self.colours, get_args(Colours))
        _one_of("layout", self.layout, get_args(Layout))
        for name, least in (("height", 1), ("width", 1), ("shorter", 0)):
            _whole(name, getattr(self, name), least, LARGEST_SIDE)
        if self.shorter and (self.fit != "crop" or self.shorter < max(self.height, self.width)):
            raise ValueError('shorter goes with fit = "crop", and is no less than height and width')
        channels = 1 if self.colours == "grey" else 3
        for name, numbers in (("mean", self.mean), ("std", self.std)):
            if not all(_is_number(number) for number in numbers) or len(numbers) not in (0, 1, channels):
                raise ValueError(f"{name} takes one number, or {channels}")
        if not _is_number(self.scale) or self.scale <= 0 or 0 in self.std:
            raise ValueError("scale is above 0, and std is never 0")
        if self.layout == "NHW" and self.colours != "grey":
            raise ValueError('layout NHW has no place for colours; set colours = "grey"')

    @property
    def covered(self) -> tuple[int, int]:
        """Height and width that a picture is brought to before its middle is taken."""
        return (self.shorter, self.shorter) if self.shorter else (self.height, self.width)

    @property
    def picture(self) -> PictureSpec:
        """What a manifest says of it."""
        height, width = self.covered
        return PictureSpec(height, width, self.fit, self.resample)


@dataclass(frozen=True)
class TextSteps:
    """From a text to tokens: ``[text]``, by the WordPiece tokenizer of BERT and its relatives.

    Attributes:
        vocabulary: tokens, in the order of their numbers.
        lowercase: whether letters are made small first.
        strip_accents: whether é is e.
        max_length: tokens of a text, its first and last special one among them; what is more is cut off.
        column: of the data, that holds the texts; "": ``text``, or the only column of texts.
        ids: the model's input that takes the tokens' numbers [N, L].
        mask: that takes 1 for a token and 0 for padding, where the model has it.
        types: that takes the number of the sentence, which is always 0, where the model has it.
        unknown, start, end, pad, masked: the special tokens.
    """

    vocabulary: tuple[str, ...] = field(repr=False)
    lowercase: bool = True
    strip_accents: bool = True
    max_length: int = 128
    column: str = ""
    ids: str = "input_ids"
    mask: str = "attention_mask"
    types: str = "token_type_ids"
    unknown: str = "[UNK]"
    start: str = "[CLS]"
    end: str = "[SEP]"
    pad: str = "[PAD]"
    masked: str = "[MASK]"

    def __post_init__(self) -> None:
        """Hold the fields to one another."""
        _whole("max_length", self.max_length, 3, LONGEST)
        if len(set(self.vocabulary)) != len(self.vocabulary) or any(
            not token or "\n" in token or "\r" in token for token in self.vocabulary
        ):
            raise ValueError("the vocabulary has one token a line, none of them twice and none empty")
        special = (self.unknown, self.start, self.end, self.pad, self.masked)
        if lacking := [token for token in special if token not in self.vocabulary]:
            raise ValueError(f"the vocabulary lacks the special token {lacking[0]}")
        if len({self.ids, self.mask, self.types}) < 3 or not all((self.ids, self.mask, self.types)):
            raise ValueError("ids, mask and types name three inputs of the model")


@dataclass(frozen=True)
class ColumnSteps:
    """One column of a table: ``[[column]]``: a number that is scaled, or a category.

    Attributes:
        name: of the column, and of the package's input.
        mean: subtracted from a number.
        std: divided by after that.
        categories: its values, each with a place of its own; a value that is none of them has none. () for a number.
    """

    name: str
    mean: float = 0.0
    std: float = 1.0
    categories: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Hold the fields to one another."""
        if not self.name or not _is_number(self.mean) or not _is_number(self.std) or self.std == 0:
            raise ValueError("a column has a name, a mean and a std that is not 0")
        if self.categories and (self.mean, self.std) != (0.0, 1.0):
            raise ValueError(f"column {self.name} has categories, and so no mean and std")
        if len(set(self.categories)) != len(self.categories) or not all(isinstance(c, str) for c in self.categories):
            raise ValueError(f"column {self.name}: categories are texts, none of them twice")


@dataclass(frozen=True)
class OutputSteps:
    """After the model: ``[output]``.

    Attributes:
        softmax: whether scores that are logits become probabilities.
        temperature: scores are divided by it first; above 1 the model is less sure of itself.
        fit_temperature: whether the temperature is fitted on the calibration rows instead.
    """

    softmax: bool = False
    temperature: float = 1.0
    fit_temperature: bool = False

    def __post_init__(self) -> None:
        """Hold the fields to one another."""
        if not _is_number(self.temperature) or self.temperature <= 0:
            raise ValueError("temperature is a number above 0")
        if self.fit_temperature and self.temperature != 1:
            raise ValueError("temperature is either given or fitted")


@dataclass(frozen=True)
class Processing:
    """What comes before and after a model; of the first three at most one is there.

    Attributes:
        image: the package takes pictures.
        text: it takes texts.
        columns: it takes the columns of a table.
        output: what is done with the scores.
        origin: where it was read, for people: a file's name.
    """

    image: ImageSteps | None = None
    text: TextSteps | None = None
    columns: tuple[ColumnSteps, ...] = ()
    output: OutputSteps = field(default_factory=OutputSteps)
    origin: str = ""

    def __post_init__(self) -> None:
        """Hold the parts to one another."""
        if (self.image is not None) + (self.text is not None) + bool(self.columns) > 1:
            raise ValueError("a model takes pictures, texts or the columns of a table: one of them")
        if len({column.name for column in self.columns}) != len(self.columns):
            raise ValueError("two columns have the same name")

    @property
    def picture(self) -> PictureSpec | None:
        """What a manifest says of the pictures that are taken."""
        return None if self.image is None else self.image.picture

    @property
    def before(self) -> bool:
        """Whether something comes before the model."""
        return self.image is not None or self.text is not None or bool(self.columns)

    def to_json(self) -> dict[str, Any]:
        """As a package's recipe has it: without the vocabulary, which the package's graph holds."""
        told: dict[str, Any] = {"output": _differing(self.output)} if self.output != OutputSteps() else {}
        if self.image is not None:
            told["image"] = _differing(self.image)
        if self.text is not None:
            told["text"] = {name: value for name, value in _differing(self.text).items() if name != "vocabulary"}
        if self.columns:
            told["column"] = [_differing(column) for column in self.columns]
        return told


def read_processing(told: Mapping[str, Any], vocabulary: tuple[str, ...] = (), origin: str = "") -> Processing:
    """What a TOML file or a recipe says.

    Args:
        told: tables by name.
        vocabulary: the texts' one.
        origin: where it was read.

    Raises:
        ValueError: it cannot be followed; the message says what is wrong where.
    """
    if unknown := set(told) - {"image", "text", "column", "output"}:
        raise ValueError(f"there is no table [{min(unknown)}]; there are [image], [text], [[column]] and [output]")
    columns = told.get("column", [])
    if not isinstance(columns, list):
        raise ValueError("columns are written as [[column]], one table each")
    text = told.get("text")
    return Processing(
        image=None if "image" not in told else _read(ImageSteps, "[image]", told["image"]),
        text=None if text is None else _read(TextSteps, "[text]", {**text, "vocabulary": list(vocabulary)}),
        columns=tuple(_read(ColumnSteps, "[[column]]", column) for column in columns),
        output=_read(OutputSteps, "[output]", told.get("output", {})),
        origin=origin,
    )


def _read(kind: type[Any], where: str, told: Any) -> Any:
    if not isinstance(told, Mapping):
        raise ValueError(f"{where} has to be a table")
    defaults = {f.name: f.type for f in fields(kind)}
    if unknown := set(told) - set(defaults):
        raise ValueError(f"{where} has no {min(unknown)!r}; it has {', '.join(defaults)}")
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in told.items()}
    for name, value in values.items():
        if not _fits(str(defaults[name]), value):
            raise ValueError(f"{where}: {name} cannot be {value!r:.60}")
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(f"{where}: {str(error).partition('()')[2].strip() or error}") from error
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _fits(declared: str, value: Any) -> bool:
    if declared.startswith("tuple"):
        kind = str if "str" in declared else (int, float)
        return isinstance(value, tuple) and all(isinstance(item, kind) and not isinstance(item, bool) for item in value)
    return {
        "int": type(value) is int,
        "bool": type(value) is bool,
        "float": _is_number(value),
    }.get(declared, isinstance(value, str))


def _differing(steps: Any) -> dict[str, Any]:
    """What is not left at its default, as JSON types."""
    defaults = {f.name: f.default for f in fields(steps)}
    told = {name: value for name, value in asdict(steps).items() if value != defaults[name]}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in told.items()}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30


def _whole(name: str, value: Any, least: int, most: int) -> None:
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{name} is a whole number from {least} to {most}, not {value!r:.40}")


def _one_of(name: str, value: Any, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name} is one of {', '.join(known)}, not {value!r:.40}")
