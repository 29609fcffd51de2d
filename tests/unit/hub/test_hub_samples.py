"""Samples over the hub's real HTTP interface: kept once, labelled, forgotten, and deleted with a proof that holds."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select, update
from typer.testing import CliRunner

from cloud_hub import exit_codes
from cloud_hub.access.principals import Role
from cloud_hub.cli import app
from cloud_hub.records.sample_tables import sample_deletions
from cloud_hub.records.sample_tables import samples as table
from cloud_hub.records.teaching_tables import escalation_inputs, escalations
from cloud_hub.samples.deletion import verify
from cloud_hub.samples.keeping import INPUTS, LISTS
from cloud_hub.samples.store import SHARE_OF_ONE, Wanted
from edgeloop.package import Package
from edgeloop.protocol import Ack, Sample, decode
from edgeloop.protocol.inputs import Tensor
from tests.unit.hub.api_kit import ApiHub
from tests.unit.hub.kit import TOPICS

URL = "/api/v1/samples"
ON = {"policy": {"samples": {"strategies": {"random": 1.0}, "keep_s": 1000.0}}}
LIMIT = 1 << 20


class SamplesHub(ApiHub):
    """A hub with a release whose devices send samples."""

    release: str
    _sequence = 0

    def sample(self, device: str = "dev-1", value: float = 1.0, **changed: Any) -> Sample:
        """A sample that was not sent yet."""
        SamplesHub._sequence += 1
        values: dict[str, Any] = {
            "device": device,
            "epoch": 7,
            "number": self._sequence,
            "channel": "stable",
            "release": self.release,
            "id": f"p{self._sequence}",
            "form": "input",
            "tensors": {"x": Tensor.of(np.full(64, value, np.float32))},
            "strategy": "random",
            "probability": 0.5,
            "predicted": 3,
            "confidence": 0.75,
            "taken": self.clock(),
        }
        return Sample(**{**values, **changed})

    def send(self, sample: Sample, status: int = 200) -> Ack:
        """Send it over HTTP."""
        answer = self.http.post(URL, content=sample.to_bytes())
        assert answer.status_code == status, answer.text
        return Ack.from_bytes(answer.content)

    def keep(self, device: str = "dev-1", value: float = 1.0, **changed: Any) -> dict[str, Any]:
        """A sample that is kept, as it is listed."""
        sample = self.sample(device, value, **changed)
        self.send(sample)
        return next(one for one in self.get("samples", device=device) if one["prediction"] == sample.id)

    def files(self) -> list[Path]:
        return sorted(self.hub.settings.data.glob(f"{INPUTS}/??/*"))

    def check(self) -> tuple[str, ...]:
        """What verifying finds."""
        return verify(self.hub.db, self.hub.samples.store, self.hub.settings.data / LISTS).problems


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, package: Package) -> Iterator[SamplesHub]:
    folder = tmp_path_factory.mktemp("samples")
    hub = SamplesHub(folder / "data", samples_max_bytes=LIMIT)
    hub.release = hub.publish(package)
    hub.post("channels/stable/releases", {"digest": hub.release})
    for channel in ("stable", "night"):
        hub.put(f"channels/{channel}", ON)
    yield hub
    hub.close()


def test_a_sample_is_kept_once_and_its_inputs_are_those_that_were_sent(api: SamplesHub) -> None:
    sample = api.sample("once", 2.5)
    for _ in range(2):
        ack = api.send(sample)
        assert (ack.epoch, ack.last, ack.samples) == (7, 0, (sample.number,))
    (kept,) = api.get("samples", device="once")
    assert (kept["strategy"], kept["probability"], kept["predicted"], kept["label"]) == ("random", 0.5, 3, None)
    assert kept["expires"] == api.clock() + 1000
    answer = api.http.get(f"{URL}/{kept['number']}/inputs")
    tensors = {name: Tensor.from_wire(value, name) for name, value in decode(answer.content).items()}
    assert np.array_equal(tensors["x"].row(), np.full(64, 2.5, np.float32))
    assert api.get("samples/totals", device="once")[0]["samples"] == 1


def test_what_comes_over_mqtt_is_kept_and_acknowledged_to_its_device(api: SamplesHub) -> None:
    intake, sample = api.hub.samples.intake, api.sample("mqtt")
    foreign = api.sample("somebody")
    for payload in (sample.to_bytes(), foreign.to_bytes(), b"\xff not cbor"):
        intake.submit(TOPICS.samples("mqtt").replace("/test/", f"/{api.hub.settings.fleet}/"), payload)
    for message in intake.inbox.take(10, 0):
        intake._read(message)
    told = [payload for topic, payload, _ in api.sent.messages if topic.endswith("/d/mqtt/ack")]
    assert [Ack.from_bytes(one).samples for one in told] == [(sample.number,)]
    assert len(api.get("samples", device="mqtt")) == 1 and api.get("samples", device="somebody") == []
    found = api.get("quarantine", device="mqtt")
    assert {one["reason"] for one in found["newest"]} == {"malformed", "wrong-device"}
    assert {one["bytes"] for one in found["newest"]} == {0}, "an input that is refused is kept nowhere"


@pytest.mark.parametrize(
    "changed",
    [
        {"channel": "nowhere"},
        {"channel": "quiet"},
        {"form": "features"},
        {"tensors": {"x": Tensor("FP32", (64,), b"short")}},
        {"tensors": {"x": Tensor("COMPLEX", (1,), b"12345678")}},
    ],
)
def test_what_the_channel_does_not_ask_for_is_not_kept_and_let_go(api: SamplesHub, changed: dict[str, Any]) -> None:
    api.put("channels/quiet", {"policy": {}})
    sample = api.sample("eager", **changed)
    assert api.send(sample).samples == (sample.number,)
    assert api.get("samples", device="eager") == []


def test_what_is_no_sample_is_refused(api: SamplesHub) -> None:
    assert api.http.post(URL, content=b"nonsense").status_code == 422
    assert api.http.post(URL, content=b"x" * (Sample.max_bytes + 1)).status_code == 413


def test_one_device_cannot_fill_the_hub(api: SamplesHub) -> None:
    size = int(SHARE_OF_ONE * LIMIT * 0.6) // 4
    tensors = {"x": Tensor.of(np.zeros(size, np.float32))}
    api.send(api.sample("greedy", tensors=tensors))
    second = api.sample("greedy", tensors=tensors)
    assert api.http.post(URL, content=second.to_bytes()).status_code == 507
    api.keep("modest")
    assert api.http.delete(URL, params={"device": "greedy"}).json()["count"] == 1
    assert len(api.get("samples", device="greedy")) == 0
    api.send(api.sample("greedy", tensors=tensors, taken=api.clock() + 5))
    assert len(api.get("samples", device="greedy")) == 1


def test_labels_come_from_the_device_a_teacher_and_a_person_who_counts_most(api: SamplesHub) -> None:
    kept = api.keep("taught")
    with api.hub.db.begin() as connection:
        row = dict.fromkeys(("probability", "audit", "wait", "predicted", "confidence", "bytes", "ms", "cost"), 0)
        words = {"channel": "stable", "release": api.release, "segment": "", "form": "input", "reason": ""}
        connection.execute(
            escalations.insert().values(
                **row,
                **words,
                device="taught",
                prediction=kept["prediction"],
                row=0,
                received=1.0,
                state="answered",
                label=4,
                teacher="large",
                learn=True,
                told=True,
            )
        )

    def label() -> tuple[int | None, str]:
        found = api.get(f"samples/{kept['number']}")
        return found["label"], found["source"]

    assert label() == (4, "teacher")
    api.send(api.sample("taught", id=kept["prediction"], tensors={}, label=99))
    assert label() == (4, "teacher"), "there is no such class"
    api.send(api.sample("taught", id=kept["prediction"], tensors={}, label="5"))
    assert label() == (5, "device")
    api.put(f"samples/{kept['number']}/label", {"label": "7"})
    assert label() == (7, "person")
    api.send(api.sample("taught", id=kept["prediction"], tensors={}, label=1))
    assert label() == (7, "person")
    api.put(f"samples/{kept['number']}/label", {"label": "no class"}, 422)
    api.put(f"samples/{kept['number']}/label", {"label": None})
    assert label() == (4, "teacher")
    (entry,) = [one for one in api.get("audit", about=f"samples/{kept['number']}") if one["after"] == 7]
    assert entry["what"] == "samples.label"
    assert {one["prediction"] for one in api.get("samples", labelled=True)} >= {kept["prediction"]}
    assert kept["prediction"] not in {one["prediction"] for one in api.get("samples", labelled=False)}
    assert api.keep("said", label=2)["source"] == "device"


def test_what_was_kept_long_enough_is_gone_from_records_and_disk(tmp_path: Path, api: SamplesHub) -> None:
    before = set(api.files())
    kept = api.keep("old")
    (file,) = set(api.files()) - before
    api.hub.samples.tick()
    assert file.exists()
    with api.hub.db.begin() as connection:
        connection.execute(update(table).where(table.c.number == kept["number"]).values(expires=api.clock() - 1))
    api.hub.samples.tick()
    assert not file.exists() and api.get("samples", device="old") == []
    api.get(f"samples/{kept['number']}", 404)


def test_a_file_without_a_row_goes_at_the_start(api: SamplesHub) -> None:
    kept = api.keep("tidy")
    stray = api.hub.settings.data / INPUTS / "ab" / f"{'ab' * 32}.sample"
    half = stray.with_name(".half.123")
    stray.parent.mkdir(exist_ok=True)
    for path in (stray, half):
        path.write_bytes(b"left behind")
    api.hub.samples.store.tidy()
    assert not stray.exists() and not half.exists()
    assert api.http.get(f"{URL}/{kept['number']}/inputs").status_code == 200


def test_deleting_a_device_takes_rows_files_and_inputs_of_escalations_and_proves_it(api: SamplesHub) -> None:
    mine = [api.keep("leaver", float(value)) for value in range(3)]
    other = api.keep("stayer")
    with api.hub.db.begin() as connection:
        hashes = set(connection.execute(select(table.c.sha256).where(table.c.device == "leaver")).scalars())
        row = dict.fromkeys(("probability", "audit", "wait", "predicted", "confidence", "ms", "cost", "row"), 0)
        words = {"channel": "stable", "release": api.release, "segment": "", "form": "input", "reason": ""}
        words |= {"device": "leaver", "prediction": "hard", "state": "asked", "teacher": ""}
        made = connection.execute(
            escalations.insert().values(**row, **words, bytes=40, received=api.clock() - 1, learn=True, told=False)
        )
        number = made.inserted_primary_key[0]
        connection.execute(escalation_inputs.insert().values(number=number, data=b"a face", until=None))
    assert api.http.delete(URL).status_code == 422, "everything of everybody"
    answer = api.http.delete(URL, params={"device": "leaver"})
    assert answer.status_code == 200, answer.text
    done = answer.json()
    assert done["count"] == 4 and done["device"] == "leaver" and done in api.get("samples/deletions")
    assert api.get("samples", device="leaver") == [] and len(api.get("samples", device="stayer")) == 1
    assert not [path for path in api.files() if path.name.removesuffix(".sample") in hashes]
    with api.hub.db.read() as connection:
        assert connection.execute(select(escalation_inputs).where(escalation_inputs.c.number == number)).first() is None
    listed = api.http.get(f"{URL}/deletions/{done['id']}").content
    assert hashlib.sha256(listed).hexdigest() == done["list_sha256"]
    lines = [json.loads(line) for line in listed.splitlines()]
    assert {line["sha256"] for line in lines if "sha256" in line} == hashes
    (entry,) = api.get("audit", about=f"samples/{done['id']}")
    assert entry["what"] == "samples.delete" and entry["before"] == done and entry["after"] is None
    assert api.check() == ()
    for one in (*mine, other):
        api.get(f"samples/{one['number']}", 200 if one is other else 404)


def test_what_was_on_its_way_when_it_was_deleted_is_not_kept(api: SamplesHub) -> None:
    late, later = api.sample("sender"), api.sample("sender", taken=api.clock() + 10)
    api.keep("sender")
    api.http.delete(URL, params={"device": "sender"})
    assert api.send(late).samples == (late.number,) and api.get("samples", device="sender") == []
    api.send(later)
    assert len(api.get("samples", device="sender")) == 1, "what is taken afterwards is another matter"


def test_deleting_by_time_and_channel_takes_no_more_than_that(api: SamplesHub) -> None:
    now = api.clock()
    for at in (now - 300, now - 200, now - 100):
        api.keep("timed", taken=at)
    api.keep("timed", taken=now - 200, channel="night")
    done = api.http.delete(URL, params={"channel": "night", "since": now - 250, "until": now - 150}).json()
    assert done["count"] == 1
    done = api.http.delete(URL, params={"device": "timed", "since": now - 250, "until": now - 150}).json()
    assert done["count"] == 1
    assert sorted(one["taken"] for one in api.get("samples", device="timed")) == [now - 300, now - 100]
    assert api.check() == ()


def test_nothing_is_said_to_be_deleted_that_is_not(api: SamplesHub, monkeypatch: pytest.MonkeyPatch) -> None:
    api.keep("stuck")
    before = api.get("samples/deletions")

    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refuse)
        assert api.http.delete(URL, params={"device": "stuck"}).status_code == 507
    assert len(api.get("samples", device="stuck")) == 1 and api.get("samples/deletions") == before
    assert api.check() == ()


def test_a_proof_that_was_touched_does_not_hold_whoever_checks(tmp_path: Path, package: Package) -> None:
    api, data = SamplesHub(tmp_path / "data"), tmp_path / "data"
    api.release = api.publish(package)
    api.put("channels/stable", ON)
    api.keep("leaver")
    (file,) = api.files()
    body = file.read_bytes()
    with api.hub.db.read() as connection:
        row = dict(connection.execute(select(table)).mappings().one())
    done = api.http.delete(URL, params={"device": "leaver"}).json()
    assert api.check() == ()
    proof = data / LISTS / f"{done['id']}.jsonl"
    listed = proof.read_bytes()
    for touch in (lambda: proof.write_text(""), proof.unlink, lambda: file.write_bytes(body)):
        touch()
        assert len(api.check()) == 1
        proof.write_bytes(listed)
        file.unlink(missing_ok=True)
        assert api.check() == ()
    with api.hub.db.begin() as connection:
        connection.execute(table.insert().values(**row))
        assert len(api.check()) == 1
        connection.execute(table.delete())
        connection.execute(update(sample_deletions).values(device="somebody"))
        assert len(api.check()) == 1
        connection.execute(update(sample_deletions).values(device="leaver"))
        assert api.check() == ()
    api.close()
    # Without a hub, as whoever wants to know: the command.
    assert _command(data) == (0, "1 deletions of 1 inputs hold; nothing of them is here")
    database = sqlite3.connect(data / "hub.db")
    for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
        database.execute(f"DROP TRIGGER {name}")
    database.execute("UPDATE audit_log SET who = 'nobody' WHERE what = 'samples.delete'")
    database.commit()
    database.close()
    code, said = _command(data)
    assert code == exit_codes.AUDIT_BROKEN and "changed after it was written" in said


def _command(data: Path) -> tuple[int, str]:
    found = CliRunner().invoke(app, ["samples", "verify", "--data", str(data)])
    return found.exit_code, found.output.strip()


def test_who_may_see_inputs_and_who_may_delete_them(tmp_path: Path, package: Package) -> None:
    api = SamplesHub(tmp_path / "data", insecure=False, broker_ca=None)
    try:
        api.release = api.publish(package)
        kept = api.hub.samples.store
        api.put("channels/stable", ON)
        api.put("channels/night", ON)
        sample = api.sample("dev-1")
        assert kept.add(sample, None, None)
        number = kept.list(Wanted())[0].number
        for role, status in ((Role.VIEWER, 403), (Role.PUBLISHER, 403), (Role.OPERATOR, 200)):
            client = api.client(api.token(role, role.value))
            assert client.get(f"{URL}/{number}/inputs").status_code == status
            assert client.delete(URL, params={"device": "dev-1"}).status_code == 403
            assert client.post(URL, content=sample.to_bytes()).status_code == 403, "devices alone send samples"
            client.close()
        other = api.client(api.token(Role.OPERATOR, "night", channels=["night"]))
        assert other.get(f"{URL}/{number}/inputs").status_code == 403
        assert other.get(URL).status_code == 403
        assert other.get(URL, params={"channel": "night"}).json() == []
        other.close()
    finally:
        api.close()
