"""A language model over real HTTP, as it should be and as it should not: bounded, reported, paid for."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloud_hub.records import Database
from cloud_hub.teacher_keys import TeacherKey
from cloud_hub.teachers.keys import Keys
from cloud_hub.teachers.openai import MAX_NUMBERS, OpenAiTeacher, fill, read_answer
from cloud_hub.teachers.paid import Till
from cloud_hub.teachers.pictures import as_picture, png
from cloud_hub.teachers.port import Malformed, Opinion, Outcome, TooDear, Unavailable, Unfit
from cloud_hub.teachers.specs import OpenAiSpec
from cloud_hub.teachers.spending import Spending
from tests.doubles.openai_server import Behaviour, OpenAiServer, completion, refuses, says, sends
from tests.unit.hub.kit import Clock
from tests.unit.teachers.kit import DIGITS, question

SEVEN = says({"label": "7", "confidence": 0.8})
SECRET = "sk-not-to-be-told"


@pytest.fixture(scope="module")
def server() -> Iterator[OpenAiServer]:
    made = OpenAiServer(SEVEN)
    yield made
    made.close()


@pytest.fixture(scope="module")
def purse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spending]:
    db = Database.in_folder(tmp_path_factory.mktemp("purse"))
    db.migrate()
    yield Spending(db, clock=Clock())
    db.close()


class Asking:
    """A teacher at the server, with a name of its own at the till."""

    number = 0

    def __init__(self, server: OpenAiServer, purse: Spending, monkeypatch: pytest.MonkeyPatch, **spec: Any) -> None:
        monkeypatch.setenv("MODEL_KEY", SECRET)
        Asking.number += 1
        self.name, self.purse = f"model-{Asking.number}", purse
        values = {"kind": "openai", "url": server.url, "model": "small", "key": "vendor", **spec}
        self.spec = OpenAiSpec(**values)
        keys = Keys({"vendor": TeacherKey(url=server.url, env="MODEL_KEY")})
        till = Till(self.name, purse, self.spec.spend_per_day, self.spec.spend_per_month)
        self.teacher = OpenAiTeacher(self.spec, keys, till)

    def __call__(self, row: Any = b"seven", timeout_s: float = 20.0, **more: Any) -> Outcome:
        array = np.array(row, object) if isinstance(row, bytes) else np.asarray(row)
        (outcome,) = self.teacher.answer([question(array, **more)], timeout_s)
        return outcome

    @property
    def spent(self) -> tuple[int, float, float]:
        """Calls, money, and what is still set aside."""
        rows = [row for row in self.purse.since(0) if row.teacher == self.name]
        return sum(row.calls for row in rows), sum(row.spent for row in rows), sum(row.reserved for row in rows)


@pytest.fixture
def asking(server: OpenAiServer, purse: Spending, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    made: list[Asking] = []
    server.requests.clear()

    def make(*behaviours: Behaviour, **spec: Any) -> Asking:
        server.behaviours[:] = behaviours
        made.append(Asking(server, purse, monkeypatch, **spec))
        return made[-1]

    yield make
    server.behaviours.clear()
    for one in made:
        one.teacher.close()


def test_it_is_told_the_labels_and_answers_with_one(asking: Any, server: OpenAiServer) -> None:
    assert asking(system="You are careful.")(b"a line, a corner, a line") == Opinion(7, 0.8)
    ((path, headers, request),) = server.requests
    assert path == "/v1/chat/completions" and headers["authorization"] == f"Bearer {SECRET}"
    system, user = request["messages"]
    assert system == {"role": "system", "content": "You are careful."}
    assert json.dumps(list(DIGITS)) in user["content"] and "a line, a corner, a line" in user["content"]
    schema = request["response_format"]["json_schema"]
    assert schema["strict"] and schema["schema"]["properties"]["label"]["enum"] == list(DIGITS)
    assert (request["model"], request["max_tokens"], request["temperature"]) == ("small", 200, 0.0)


def test_pictures_are_shown_to_it(asking: Any, server: OpenAiServer) -> None:
    row = np.linspace(0, 1, 64, dtype=np.float32)
    assert isinstance(asking(picture=(8, 8))(row), Opinion)
    text, image = server.requests[0][2]["messages"][0]["content"]
    assert text["type"] == "text" and "the picture" in text["text"]
    data = image["image_url"]["url"].removeprefix("data:image/png;base64,")
    assert pixels_of(base64.b64decode(data)).reshape(-1).tolist() == np.rint(row * 255).tolist()


def test_numbers_are_written_where_it_does_not_see(asking: Any, server: OpenAiServer) -> None:
    ask = asking(vision=False, answer="text", temperature=None, token_field="max_completion_tokens")
    assert isinstance(ask([0.5, 2.0, 0.123456]), Opinion)
    request = server.requests[0][2]
    assert "[0.5, 2, 0.1235]" in request["messages"][0]["content"]
    assert set(request) == {"model", "messages", "max_completion_tokens"}
    too_many = ask(np.zeros(MAX_NUMBERS + 1))
    assert isinstance(too_many, Unfit) and str(MAX_NUMBERS) in str(too_many)
    assert isinstance(ask([1.0], labels=(), classes=2000), Unfit)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ('{"label": "3"}', Opinion(3)),
        ('```json\n{"label": "3", "confidence": 0.5}\n```', Opinion(3, 0.5)),
        ('{"label": 3, "confidence": 2}', Opinion(3)),
        ('{"label": " 3 ", "confidence": "sure"}', Opinion(3)),
    ],
)
def test_what_a_model_says_is_read(said: str, found: Opinion) -> None:
    assert read_answer(said, question([0.0])) == found


@pytest.mark.parametrize(
    "said",
    ["", "three", "[3]", '{"label": "eleven"}', '{"label": null}', '{"label": true}', '{"label": ["3"]}', "[" * 9999],
)
def test_what_is_no_answer_is_malformed(said: str) -> None:
    with pytest.raises(Malformed):
        read_answer(said, question([0.0]))


@pytest.mark.parametrize(
    ("behaviour", "kind", "said"),
    [
        (refuses(500), Unavailable, "500"),
        (refuses(401), Unavailable, "401"),
        (refuses(302, location="http://127.0.0.1:1/elsewhere"), Unavailable, "302"),
        (refuses(400, f"your key {SECRET} is \x1b[31m fine".encode()), Unfit, "it answered 400: your key … is"),
        (sends(b"<html>"), Malformed, "no chat completion"),
        (sends(b"[" * 100_000), Malformed, "no chat completion"),
        (sends(b"{}"), Malformed, "no chat completion"),
        (sends(b'{"choices": []}'), Malformed, "no chat completion"),
        (sends(b'{"choices": [{"message": 3}]}'), Malformed, "no chat completion"),
        (sends(b'{"choices": 3, "usage": [1]}'), Malformed, "no chat completion"),
        (says(None), Malformed, "it refused"),
        (says("certainly!"), Malformed, "did not answer with JSON"),
        (says({"label": "eleven", "confidence": 1}), Malformed, "'eleven' is none of the model's"),
        (says({"label": "7"}, finish_reason="length"), Malformed, "max_tokens"),
        (sends(b" " * (2 << 20)), Malformed, "longer than"),
    ],
)
def test_whatever_it_answers_is_one_outcome(asking: Any, behaviour: Behaviour, kind: type, said: str) -> None:
    outcome = asking(behaviour)()
    assert type(outcome) is kind and said in str(outcome)
    assert SECRET not in str(outcome)


def test_it_may_ask_for_time(asking: Any) -> None:
    ask = asking(refuses(429, retry_after="7"), refuses(503), refuses(429, retry_after="Thu, 01 Jan 1970 00:00:00 GMT"))
    waits = [ask() for _ in range(3)]
    assert [type(wait) for wait in waits] == [Unavailable] * 3
    assert [wait.retry_after_s for wait in waits if isinstance(wait, Unavailable)] == [7.0, 1.0, 1.0]
    assert ask() == Opinion(7, 0.8)


@pytest.mark.parametrize("how", ["sleeps", "trickles", "trickles_headers"])
def test_who_is_slow_is_cut_off(asking: Any, server: OpenAiServer, how: str) -> None:
    outcome = asking(getattr(server, how))(timeout_s=0.3)
    assert isinstance(outcome, Unavailable) and "no answer within 0.3 s" in str(outcome)


def test_who_pours_or_hangs_up_is_cut_off(asking: Any, server: OpenAiServer) -> None:
    ask = asking(server.pours, server.hangs_up)
    assert "longer than" in str(ask())
    assert isinstance(ask(), Unavailable)
    assert ask() == Opinion(7, 0.8)


def test_nobody_there_is_unavailable_and_costs_nothing(asking: Any) -> None:
    ask = asking(url="http://127.0.0.1:1/v1", key="", price_call=1.0)
    assert isinstance(ask(), Unavailable)
    assert ask.spent == (1, 0.0, 0.0)


def test_keys_go_to_their_own_address_only(asking: Any, server: OpenAiServer, tmp_path: Path) -> None:
    for url in (server.url.replace("127.0.0.1", "localhost"), server.url.replace("/v1", "/v2"), f"{server.url}/../x"):
        outcome = asking(url=url)()
        assert isinstance(outcome, Unavailable) and "not for this address" in str(outcome)
    assert "no key 'absent'" in str(asking(key="absent")())
    assert not server.requests
    file = tmp_path / "key"
    keys = Keys({"file": TeacherKey(url="https://models.example/v1", file=file)})
    with pytest.raises(Unavailable, match="cannot be read"):
        keys.read("file", "https://models.example/v1/chat/completions")
    file.write_text("first\n")
    assert keys.read("file", "https://models.example/v1/chat/completions") == "first"
    file.write_text("second\n")
    assert keys.read("file", "https://models.example/v1/chat/completions") == "second"
    file.write_text("\x00")
    with pytest.raises(Unavailable, match="no text"):
        keys.read("file", "https://models.example/v1/chat/completions")


def test_a_call_is_paid_for_as_its_usage_says(asking: Any) -> None:
    ask = asking(price_in=1000.0, price_out=2000.0, price_call=0.5)
    outcome = ask()
    cost = 0.5 + (100 * 1000 + 10 * 2000) / 1e6
    assert isinstance(outcome, Opinion) and outcome.cost == pytest.approx(cost)
    assert ask.spent == (1, pytest.approx(cost), 0.0)


def test_a_wrong_answer_is_paid_for_too_and_a_refused_call_is_not(asking: Any) -> None:
    ask = asking(says("no"), refuses(500), refuses(429), price_call=1.0)
    outcome = ask()
    assert isinstance(outcome, Malformed) and outcome.cost == 1.0
    assert [type(ask()) for _ in range(2)] == [Unavailable] * 2
    assert ask.spent == (3, 1.0, 0.0)


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": -1, "completion_tokens": "many"}, [3], 7])
def test_who_does_not_say_what_it_used_is_taken_at_the_most(asking: Any, usage: Any) -> None:
    ask = asking(sends(completion('{"label": "7"}', usage=usage)), price_out=1e6)
    outcome = ask()
    assert isinstance(outcome, Opinion) and outcome.cost == 200.0


def test_a_limit_is_not_passed_and_the_next_day_is_another(asking: Any, purse: Spending) -> None:
    ask = asking(price_call=1.0, spend_per_day=2.0, spend_per_month=3.0)
    assert [type(ask()) for _ in range(3)] == [Opinion, Opinion, TooDear]
    assert isinstance(purse._clock, Clock)
    purse._clock.now += 86_400
    assert type(ask()) is Opinion
    outcome = ask()
    assert isinstance(outcome, TooDear) and "a month" in str(outcome)
    purse._clock.now += 31 * 86_400
    assert type(ask()) is Opinion
    assert ask.spent == (4, 4.0, 0.0)


def test_what_was_set_aside_counts_as_spent_after_a_crash(asking: Any, purse: Spending) -> None:
    from cloud_hub.teachers.spending import Limits

    purse.reserve("crashed", "stable", 5.0, Limits())
    with pytest.raises(TooDear):
        purse.reserve("crashed", "stable", 1.0, Limits(teacher_day=5.0))
    again = Spending(purse._db, clock=purse._clock)
    (row,) = [row for row in again.since(0) if row.teacher == "crashed"]
    assert (row.spent, row.reserved) == (5.0, 0.0)
    with pytest.raises(TooDear, match="stable may spend"):
        again.reserve("other", "stable", 1.0, Limits(channel_day=5.0))


def test_a_template_is_filled_in_once() -> None:
    assert fill("{input} {labels} {other}", {"labels": "[1]", "input": "{labels}"}) == "{labels} [1] {other}"


def pixels_of(file: bytes) -> np.ndarray:
    """The pixels of one of our PNG files, read without our code."""
    width, height = int.from_bytes(file[16:20]), int.from_bytes(file[20:24])
    start = file.index(b"IDAT")
    raw = zlib.decompress(file[start + 4 : start + 4 + int.from_bytes(file[start - 4 : start])])
    lines = np.frombuffer(raw, np.uint8).reshape(height, -1)
    assert not lines[:, 0].any()
    return lines[:, 1:].reshape(height, width, -1)


@pytest.mark.parametrize("shape", [(9, 8), (9, 8, 1), (9, 8, 3), (3, 9, 8), (4, 9, 8)])
def test_pictures_are_what_they_were(shape: tuple[int, ...]) -> None:
    row = np.random.default_rng(1).integers(0, 256, shape).astype(np.uint8)
    pixels = as_picture(row)
    assert pixels is not None
    assert (pixels_of(png(pixels)) == pixels).all()
    colours_last = np.moveaxis(row, 0, -1) if shape[0] in (3, 4) else row
    assert (pixels == colours_last.reshape(pixels.shape)).all()


def test_a_picture_that_pillow_reads_too() -> None:
    image = pytest.importorskip("PIL.Image", reason="pip install edgeloop[pictures] reads pictures")
    import io

    row = np.random.default_rng(1).integers(0, 256, (9, 8, 3)).astype(np.uint8)
    assert (np.asarray(image.open(io.BytesIO(png(row)))) == row).all()


def test_what_is_no_picture_is_none() -> None:
    for row in (np.zeros(64), np.zeros((2, 2)), np.zeros((2, 2, 2, 2)), np.array(b"text", object), np.zeros((0, 8))):
        assert as_picture(row) is None
    assert as_picture(np.zeros(64), (2, 2, 16)) is None
