"""``cloud-hub trust``, as whoever owns the data folder types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from cloud_hub import exit_codes
from cloud_hub.cli import app
from cloud_hub.data_folder import DataFolder
from cloud_hub.trust.key_files import KeyFiles
from edgeloop.trust.names import ONLINE, ROOT, TARGETS
from tests.doubles.new_records import new_records
from tests.doubles.people import People

NOW = 1_790_000_000.0


def trust(data: Path, *words: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["trust", *words, "--data", str(data)])
    assert done.exit_code == code, done.output
    return done.stdout if code == 0 else done.stderr


def shown(data: Path) -> dict[str, Any]:
    return dict(json.loads(trust(data, "show", "--json")))


def test_keys_are_shown_metadata_imported_and_keys_rotated(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    assert shown(data)["online"] == {}, "looking makes no keys"
    KeyFiles(data / "trust" / "keys").ensure()
    db = new_records(data)
    people = People(shown(data), NOW, "digits")
    people.fleet.release("digits", "sha256:" + "a" * 64, 100)
    people.fleet.release("digits", "sha256:" + "b" * 64, 100)
    files = []
    # The first version of the publisher's role is missing: a hub that was restored from a copy is given the newest.
    for name in ("1.root.json", "1.targets.json", "2.releases.digits.json"):
        (tmp_path / name).write_bytes(people.fleet.files[name])
        files.append(str(tmp_path / name))
    lock = DataFolder(data)
    assert "another cloud-hub" in trust(data, "import", *files, code=exit_codes.DATA_IN_USE)
    lock.close()
    assert trust(data, "import", *reversed(files)).split("\n")[:3] == [
        "took root 1",
        "took targets 1",
        "took releases.digits 2",
    ]
    found = shown(data)
    assert found["ready"] and found["versions"]["releases.digits"] == 2 and set(ONLINE) < set(found["versions"])
    assert all(keys[-1]["in_use"] for keys in found["online_keys"].values())

    assert "made key 2" in trust(data, "rotate-online", "channels")
    assert "waits to be signed for" in trust(data, "rotate-online", "channels"), "not one more each time"
    assert [key["in_use"] for key in shown(data)["online_keys"]["channels"]] == [True, False]
    assert "the hub has no key of" in trust(data, "rotate-online", ROOT, code=exit_codes.METADATA_REFUSED)

    (tmp_path / "1.targets.json").write_bytes(b"{}")
    assert "no metadata file" in trust(
        data, "import", str(tmp_path / "1.targets.json"), code=exit_codes.METADATA_REFUSED
    )
    other = People(found, NOW).sign(TARGETS, People(found, NOW).fleet.draft(TARGETS))
    (tmp_path / "2.targets.json").write_bytes(other)
    assert "0 of the 1 signatures" in trust(
        data, "import", str(tmp_path / "2.targets.json"), code=exit_codes.METADATA_REFUSED
    )
    assert "the hub signs" in trust(data, "show")
    db.close()
