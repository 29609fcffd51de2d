"""A teacher behind an OpenAI-compatible endpoint: a prompt with the labels, an answer in JSON, pictures where it sees.

The answer is believed as far as it is one of the labels, and no further: an input that tells the model what to say can
make it say another label, and nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from cloud_hub.teachers.calls import Calls, check
from cloud_hub.teachers.keys import Keys
from cloud_hub.teachers.paid import Bill, Till
from cloud_hub.teachers.pictures import as_picture, data_url
from cloud_hub.teachers.port import Array, Malformed, Opinion, Outcome, Question, TeacherError, Unfit
from cloud_hub.teachers.specs import OpenAiSpec

#: Numbers of an input that are written into a prompt, at most.
MAX_NUMBERS = 4096
#: Characters of a text that are written into a prompt, at most.
MAX_TEXT = 100_000
#: Labels that a schema names; an endpoint takes some hundreds (OpenAI: 1,000 values of enumerations).
MAX_LABELS = 1000
_FENCE = re.compile(r"^```\w*\s*(.*?)\s*```$", re.DOTALL)
#: Tokens around the messages, at most; what a schema adds is counted with its text.
_OVERHEAD = 100


class OpenAiTeacher:
    """A language model that is asked one question at a time.

    Args:
        spec: where it is, and what it is told.
        keys: of the hub.
        till: pays for the calls.
    """

    batch = 1

    def __init__(self, spec: OpenAiSpec, keys: Keys, till: Till) -> None:
        self._spec, self._keys, self._till = spec, keys, till
        self._url = f"{spec.url}/chat/completions"
        self._calls = Calls(spec.instances)

    def answer(self, questions: Sequence[Question], timeout_s: float) -> Sequence[Outcome]:
        """Ask it, one after the other; it is given one at a time."""
        return [self._outcome(question, timeout_s) for question in questions]

    def close(self) -> None:
        """Close its connections."""
        self._calls.close()

    def _outcome(self, question: Question, timeout_s: float) -> Outcome:
        try:
            body, most = self._request(question)
            key = self._keys.read(self._spec.key, self._url)
            opinion, cost = self._till.pay(question, most, lambda: self._call(question, body, key, timeout_s))
        except TeacherError as error:
            return error
        return Opinion(opinion.label, opinion.confidence, cost)

    def _call(self, question: Question, body: bytes, key: str, timeout_s: float) -> tuple[Opinion, Bill]:
        reply = check(self._calls.post(self._url, body, key, timeout_s), key)
        bill = Bill()
        try:
            answer = json.loads(reply)
            bill = self._bill(answer, body)
            choice = answer["choices"][0]
            if choice.get("finish_reason") == "length":
                raise Malformed(f"its answer was cut off after {self._spec.max_tokens} tokens (max_tokens)")
            said = choice["message"]["content"]
            if not isinstance(said, str):
                raise Malformed(f"it refused: {choice['message'].get('refusal') or 'no content'}"[:300])
            return read_answer(said, question), bill
        except Malformed as error:
            error.cost = bill.cost
            raise
        except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
            raise Malformed("its answer is no chat completion", cost=bill.cost) from error

    def _request(self, question: Question) -> tuple[bytes, float]:
        """The body, and what the call may cost at most."""
        spec = self._spec
        if question.form == "features":
            raise Unfit("features of a model mean nothing to it")
        names = question.names() if question.classes <= MAX_LABELS else ()
        if not names:
            raise Unfit(f"it is asked with {MAX_LABELS} labels at most, and the model has {question.classes}")
        written, pictures = self._inputs(question)
        labels = json.dumps(list(names), ensure_ascii=False)
        prompt = fill(spec.prompt, {"labels": labels, "input": written})
        content: list[dict[str, Any]] = [{"type": "text", "text": prompt}]
        content += [{"type": "image_url", "image_url": {"url": data_url(pixels)}} for pixels in pictures]
        messages: list[dict[str, Any]] = [{"role": "system", "content": spec.system}] if spec.system else []
        messages.append({"role": "user", "content": content if pictures else prompt})
        request: dict[str, Any] = {"model": spec.model, "messages": messages, spec.token_field: spec.max_tokens}
        schema = ""
        if spec.temperature is not None:
            request["temperature"] = spec.temperature
        if spec.answer == "json_object":
            request["response_format"] = {"type": "json_object"}
        elif spec.answer == "json_schema":
            form = {"name": "label", "strict": True, "schema": schema_of(names)}
            request["response_format"] = {"type": "json_schema", "json_schema": form}
            schema = json.dumps(form)
        # A token has one byte at least: this many there cannot be more.
        tokens = len((spec.system + prompt + schema).encode()) + len(pictures) * spec.picture_tokens + _OVERHEAD
        return json.dumps(request).encode(), self._price(tokens, spec.max_tokens)

    def _inputs(self, question: Question) -> tuple[str, list[Array]]:
        """What is written of the inputs, and those that are shown."""
        written, pictures = [], []
        for name, row in question.tensors.items():
            pixels = as_picture(row, self._spec.picture) if self._spec.vision and row.dtype.kind != "O" else None
            if pixels is not None:
                pictures.append(pixels)
                text = "the picture"
            elif row.dtype.kind == "O":
                text = bytes(row.item()).decode(errors="replace")
                if len(text) > MAX_TEXT:
                    raise Unfit(f"the text has {len(text)} characters; {MAX_TEXT} are written at most")
            else:
                if row.size > MAX_NUMBERS:
                    raise Unfit(f"the input has {row.size} numbers; {MAX_NUMBERS} are written at most")
                rounded = [round(float(value), 4) for value in row.reshape(-1)]
                text = json.dumps([int(value) if value.is_integer() else value for value in rounded])
            written.append(text if len(question.tensors) == 1 else f"{name}: {text}")
        return "\n".join(written), pictures

    def _bill(self, answer: Any, body: bytes) -> Bill:
        """What its usage says; where it says nothing, what its words may be."""
        usage = answer.get("usage") if isinstance(answer, Mapping) else None
        counts = [
            usage.get(name) if isinstance(usage, Mapping) else None for name in ("prompt_tokens", "completion_tokens")
        ]
        tokens = [
            count if isinstance(count, int) and 0 <= count < 1 << 40 else most
            for count, most in zip(counts, (len(body), self._spec.max_tokens), strict=True)
        ]
        return Bill(self._price(*tokens), *tokens)

    def _price(self, tokens_in: int, tokens_out: int) -> float:
        spec = self._spec
        return spec.price_call + (tokens_in * spec.price_in + tokens_out * spec.price_out) / 1e6


def fill(template: str, values: Mapping[str, str]) -> str:
    """A template with its ``{names}`` filled in, once: what is filled in is no template, and other braces stay."""
    pattern = re.compile("|".join(re.escape(f"{{{name}}}") for name in values))
    return pattern.sub(lambda found: values[found.group()[1:-1]], template)


def schema_of(labels: Sequence[str]) -> dict[str, Any]:
    """JSON Schema of an answer."""
    return {
        "type": "object",
        "properties": {
            "label": {"type": "string", "enum": list(labels)},
            "confidence": {"type": "number", "minimum": 0, "maximum": 1},
        },
        "required": ["label", "confidence"],
        "additionalProperties": False,
    }


def read_answer(said: str, question: Question) -> Opinion:
    """What a model has said, as a class of the model that asks.

    Raises:
        Malformed: it is no JSON with a label, or the label is none of them.
    """
    fenced = _FENCE.match(said.strip())
    try:
        answer = json.loads(fenced.group(1) if fenced else said)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"it did not answer with JSON: {said[:80]!r}") from error
    label = answer.get("label") if isinstance(answer, dict) else None
    if isinstance(label, int) and not isinstance(label, bool):
        label = str(label)
    if not isinstance(label, str):
        raise Malformed(f"its answer has no label: {said[:80]!r}")
    index = question.index_of(label.strip())
    if index is None:
        raise Malformed(f"its label {label[:80]!r} is none of the model's")
    sure = answer.get("confidence")
    number = isinstance(sure, int | float) and not isinstance(sure, bool) and 0 <= sure <= 1
    return Opinion(index, float(sure) if number else None)
