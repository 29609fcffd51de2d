"""Label Studio's JSON: items as tasks to import there, and what it exports as labels. Pure.

Formats: https://labelstud.io/guide/tasks (tasks, with predictions), https://labelstud.io/guide/export (JSON, JSON_MIN).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from cloud_hub.escalations.records import EscalationRecord
from cloud_hub.teachers.pictures import as_picture, data_url
from cloud_hub.teachers.port import Question

#: In a task's data: the item's number, and what it is about, so that it is not taken for one of another hub.
ITEM, ABOUT = "edgeloop_item", "edgeloop_about"
#: Names in the labelling configuration; docs/how-to/label-by-hand.md has it.
CHOICE, IMAGE, TEXT = "label", "image", "text"
#: Numbers of an input that are shown, at most.
MAX_NUMBERS = 4096


class Imported(NamedTuple):
    """What somebody in Label Studio has said of a task.

    Attributes:
        item: number of the item.
        about: what the task says that it is about.
        label: the choice, or None: the task was skipped.
    """

    item: int
    about: str
    label: str | None


def about(record: EscalationRecord) -> str:
    """What an item is about, the same wherever it is written."""
    return f"{record.device}/{record.prediction}/{record.row}"


def shown(question: Question, picture: tuple[int, ...] = ()) -> dict[str, str]:
    """What a person is shown: ``image``, a picture as a data URL, and ``text``: all that is no picture."""
    found: dict[str, str] = {}
    texts = []
    for name, row in question.tensors.items():
        pixels = None if row.dtype.kind == "O" or IMAGE in found else as_picture(row, picture)
        if pixels is not None:
            found[IMAGE] = data_url(pixels)
            continue
        text = bytes(row.item()).decode(errors="replace") if row.dtype.kind == "O" else _numbers(row)
        texts.append(text if len(question.tensors) == 1 else f"{name}: {text}")
    return found | ({TEXT: "\n".join(texts)} if texts else {})


def task(record: EscalationRecord, question: Question, picture: tuple[int, ...] = ()) -> dict[str, Any]:
    """A task with the device's own answer as a prediction."""
    names = question.names() if question.classes <= 100_000 else ()
    predicted = names[record.predicted] if record.predicted < len(names) else str(record.predicted)
    choice = {
        "from_name": CHOICE,
        "to_name": IMAGE if IMAGE in (data := shown(question, picture)) else TEXT,
        "type": "choices",
        "value": {"choices": [predicted]},
    }
    return {
        "data": {**data, ITEM: record.number, ABOUT: about(record), "channel": record.channel},
        "predictions": [{"model_version": record.release, "score": record.confidence, "result": [choice]}],
    }


def read_export(tasks: Any) -> list[Imported]:
    """What an export says, as JSON or JSON_MIN; of several annotations of a task the newest that was not cancelled.

    Raises:
        ValueError: it is no export, or a task in it is none of ours; the message says which.
    """
    if not isinstance(tasks, list):
        raise ValueError("it has to be a list of tasks, as Label Studio's JSON and JSON_MIN are")
    return [_read(found, f"task {number}") for number, found in enumerate(tasks)]


def _read(found: Any, where: str) -> Imported:
    if not isinstance(found, Mapping):
        raise ValueError(f"{where} is no object")
    data = found.get("data", found)  # JSON_MIN has a task's data beside its choices
    item = data.get(ITEM) if isinstance(data, Mapping) else None
    if not isinstance(item, int) or isinstance(item, bool) or not 0 <= item < 1 << 63:
        raise ValueError(f"{where} has no {ITEM}: it was not exported by this hub")
    return Imported(item, str(data.get(ABOUT, "")), _choice(found, where))


def _choice(found: Mapping[str, Any], where: str) -> str | None:
    if "annotations" not in found:
        choice = found.get(CHOICE)
        if choice is not None and not isinstance(choice, str):
            raise ValueError(f"{where} has no single choice {CHOICE!r}")
        return choice
    annotations = found["annotations"]
    if not isinstance(annotations, list):
        raise ValueError(f"{where} has annotations that are no list")
    choices: list[tuple[str, str]] = []
    for annotation in annotations:
        if not isinstance(annotation, Mapping):
            raise ValueError(f"{where} has an annotation that is no object")
        if annotation.get("was_cancelled"):
            continue
        results = annotation.get("result")
        choices += [
            (str(annotation.get("updated_at", "")), _single(result, where))
            for result in (results if isinstance(results, list) else ())
            if isinstance(result, Mapping) and result.get("from_name") == CHOICE
        ]
    return max(choices, key=lambda one: one[0])[1] if choices else None


def _single(result: Mapping[str, Any], where: str) -> str:
    value = result.get("value")
    choices = value.get("choices") if isinstance(value, Mapping) else None
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], str):
        raise ValueError(f"{where} has no single choice")
    return choices[0]


def _numbers(row: Any) -> str:
    numbers = [round(float(value), 4) for value in row.reshape(-1)[:MAX_NUMBERS]]
    return json.dumps(numbers) if row.size <= MAX_NUMBERS else f"{json.dumps(numbers)[:-1]}, …]"
