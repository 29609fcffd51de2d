"""A teacher behind an Open Inference Protocol endpoint, over HTTP with JSON: Triton, KServe, OpenVINO, an agent."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import numpy as np

from cloud_hub.teachers.calls import Calls, check
from cloud_hub.teachers.keys import Keys
from cloud_hub.teachers.paid import Bill, Till
from cloud_hub.teachers.port import Array, Malformed, Opinion, Outcome, Question, TeacherError, Unfit
from cloud_hub.teachers.specs import OipSpec
from edgeloop.runtime.datatypes import oip_name

#: Outputs that say the class, the better one first.
_OUTPUTS = ("probabilities", "logits", "label")
#: A row of numbers whose sum is so close to 1 is one of probabilities.
_ROUGHLY = 0.01


class OipTeacher:
    """A model elsewhere.

    Args:
        spec: where it is.
        keys: of the hub.
        till: pays for the calls.
    """

    def __init__(self, spec: OipSpec, keys: Keys, till: Till) -> None:
        self._spec, self._keys, self._till, self.batch = spec, keys, till, spec.batch
        version = f"/versions/{quote(spec.version, safe='')}" if spec.version else ""
        self._url = f"{spec.url}/v2/models/{quote(spec.model, safe='')}{version}/infer"
        self._calls = Calls(spec.instances)

    def answer(self, questions: Sequence[Question], timeout_s: float) -> Sequence[Outcome]:
        """Ask for those together that have the same shapes and are on the same channel's account."""
        outcomes: list[Outcome | None] = [None] * len(questions)
        groups: dict[Any, list[int]] = {}
        for place, question in enumerate(questions):
            shapes = [(name, row.shape, row.dtype.str) for name, row in question.tensors.items()]
            groups.setdefault((question.channel, *shapes), []).append(place)
        for places in groups.values():
            for place, outcome in zip(places, self._group([questions[i] for i in places], timeout_s), strict=True):
                outcomes[place] = outcome
        return [Malformed("no outcome") if one is None else one for one in outcomes]

    def close(self) -> None:
        """Close its connections."""
        self._calls.close()

    def _group(self, questions: list[Question], timeout_s: float) -> Sequence[Outcome]:
        try:
            body = self._request(questions)
            key = self._keys.read(self._spec.key, self._url)
            price = self._spec.price_call

            def call() -> tuple[list[Outcome], Bill]:
                reply = check(self._calls.post(self._url, body, key, timeout_s), key)
                try:
                    return self._read(reply, questions), Bill(price)
                except TeacherError as error:
                    error.cost = price
                    raise

            found, cost = self._till.pay(questions[0], price, call)
        except TeacherError as error:
            # What a call cost is counted once, however many had asked.
            return [error, *[type(error)(str(error)) for _ in questions[1:]]]
        first, *others = found
        if isinstance(first, Opinion):
            return [Opinion(first.label, first.confidence, cost), *others]
        first.cost = cost
        return [first, *others]

    def _request(self, questions: list[Question]) -> bytes:
        inputs = []
        for name in questions[0].tensors:
            rows = [question.tensors[name] for question in questions]
            if rows[0].dtype.kind == "O":
                datatype, shape = "BYTES", [len(rows), 1]
                data: list[Any] = [bytes(row.item()).decode(errors="replace") for row in rows]
            else:
                datatype, shape = oip_name(rows[0].dtype), [len(rows), *rows[0].shape]
                stacked = np.stack(rows)
                if stacked.dtype.kind == "f" and not np.isfinite(stacked).all():
                    raise Unfit("the input has numbers that are not finite, which JSON does not")
                data = stacked.reshape(-1).tolist()
            named = self._spec.inputs.get(name, name)
            inputs.append({"name": named, "datatype": datatype, "shape": shape, "data": data})
        request: dict[str, Any] = {"inputs": inputs}
        if self._spec.output:
            request["outputs"] = [{"name": self._spec.output}]
        return json.dumps(request).encode()

    def _read(self, reply: bytes, questions: list[Question]) -> list[Outcome]:
        try:
            outputs = {str(output["name"]): output for output in json.loads(reply)["outputs"]}
            output = self._output(outputs)
            rows = self._rows(output, len(questions))
        except TeacherError:
            raise
        except (ValueError, RecursionError, LookupError, TypeError, AttributeError, OverflowError) as error:
            raise Malformed("its answer is none of the Open Inference Protocol") from error
        return [self._outcome(row, question) for row, question in zip(rows, questions, strict=True)]

    def _output(self, outputs: Mapping[str, Any]) -> Mapping[str, Any]:
        wanted = (self._spec.output,) if self._spec.output else _OUTPUTS
        name = next((name for name in wanted if name in outputs), None)
        if name is None and len(outputs) == 1 and not self._spec.output:
            (name,) = outputs
        if name is None:
            there = ", ".join(list(outputs)[:10])[:200]
            raise Malformed(f"it gave no output that says the class, but {there or 'none'}: name one in `output`")
        found: Mapping[str, Any] = outputs[name]
        return found

    @staticmethod
    def _rows(output: Mapping[str, Any], count: int) -> list[Any]:
        """For each question a name, a number or an array of numbers."""
        data = output["data"]
        if output["datatype"] == "BYTES":
            flat = list(np.asarray(data, object).reshape(-1))
            if len(flat) != count or not all(isinstance(one, str) for one in flat):
                raise Malformed(f"it gave {len(flat)} names for {count} inputs")
            return flat
        numbers = np.asarray(data, np.float64).reshape(-1)
        if not count or not numbers.size or numbers.size % count or not np.isfinite(numbers).all():
            raise Malformed(f"it gave {numbers.size} numbers for {count} inputs, or some that are not finite")
        return list(numbers.reshape(count, -1))

    def _outcome(self, row: str | Array, question: Question) -> Outcome:
        if isinstance(row, str):
            return _named(row, None, question)
        if len(row) == 1:  # the class itself
            if not float(row[0]).is_integer():
                return Malformed(f"it answered {row[0]:.6g}, which is no class")
            index, sure = int(row[0]), None
        else:
            index = int(row.argmax())
            sure = float(_probabilities(row)[index])
        labels = self._spec.labels
        if labels:
            if not 0 <= index < len(labels):
                return Malformed(f"it answered class {index}, and has {len(labels)}")
            return _named(labels[index], sure, question)
        if not 0 <= index < question.classes:
            return Malformed(f"it answered class {index} of {question.classes}")
        return Opinion(index, sure)


def _named(name: str, sure: float | None, question: Question) -> Outcome:
    index = question.index_of(name)
    if index is None:
        return Unfit(f"it answered {name!r:.80}, which is no class of the model that asks")
    return Opinion(index, sure)


def _probabilities(row: Array) -> Array:
    """The row, where it is one of probabilities; else its softmax: it has logits."""
    if (row >= 0).all() and abs(float(row.sum()) - 1.0) < _ROUGHLY:
        return np.minimum(row, 1.0)
    exp = np.exp(row - row.max())
    return np.asarray(exp / exp.sum())
