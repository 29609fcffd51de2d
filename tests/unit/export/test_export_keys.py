"""``model-export keys`` as a person types it: files, passphrases, drafts and who has to sign them."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from edgeloop.trust import checking, keys
from model_export.errors import KeyFileError
from model_export.exit_codes import ExitCode
from model_export.trust import key_files
from tests.doubles.secure_fleet import SecureFleet
from tests.unit.export.keys_kit import answer_of, keys_command, names, refused, roles, run
from tests.unit.export.small_hub import SmallHub


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODEL_EXPORT_PASSPHRASE", "correct horse")
    for name in ("MODEL_EXPORT_TOKEN", "MODEL_EXPORT_CA_CERT", "MODEL_EXPORT_TRUST"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def people(here: Path) -> Path:
    """Keys of alice, bob and carol, and a hub's answer in online.json."""
    for name in ("alice", "bob", "carol"):
        run("create", name, "--no-passphrase")
    (here / "online.json").write_text(json.dumps(answer_of(SecureFleet())))
    return here


class Terminal:
    """Standard input with a person at it."""

    def isatty(self) -> bool:
        return True


def begin(*more: object) -> dict[str, Any]:
    return run("init", "fleet", "--root", "alice.pub", "--targets", "alice.pub", "--online", "online.json", *more)


class TestKeyFiles:
    """What is written, and that a passphrase is asked for in the right places."""

    def test_a_private_key_is_encrypted_and_its_owner_s_alone(self, here: Path):
        keyid = run("create", "alice")["keyid"]
        assert stat.S_IMODE((here / "alice.key").stat().st_mode) == 0o600
        assert b"ENCRYPTED" in (here / "alice.key").read_bytes()
        document = json.loads((here / "alice.pub").read_text())
        assert (document["name"], document["keyid"]) == ("alice", keyid)

    def test_a_key_is_never_written_over(self, here: Path):
        run("create", "alice")
        before = (here / "alice.key").read_bytes()
        assert "never written over" in refused(ExitCode.DESTINATION, "create", "alice")
        (here / "alice.pub").unlink()
        refused(ExitCode.DESTINATION, "create", "alice")
        assert (here / "alice.key").read_bytes() == before

    def test_each_key_can_have_a_passphrase_of_its_own(self, people: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("MODEL_EXPORT_PASSPHRASE_DAVE_2", "battery staple")
        run("create", "dave-2")
        keys.from_pem((people / "dave-2.key").read_bytes(), b"battery staple")
        run("init", "fleet", "--root", "dave-2.pub", "--targets", "alice.pub", "--online", "online.json")
        monkeypatch.delenv("MODEL_EXPORT_PASSPHRASE_DAVE_2")
        assert "the passphrase is wrong" in refused(ExitCode.KEY, "sign", "fleet", "--key", "dave-2.key")

    def test_nobody_to_ask_and_nothing_to_ask_with(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("MODEL_EXPORT_PASSPHRASE", "")
        assert "--no-passphrase" in refused(ExitCode.KEY, "create", "alice")
        monkeypatch.delenv("MODEL_EXPORT_PASSPHRASE")
        assert "set MODEL_EXPORT_PASSPHRASE_ALICE" in refused(ExitCode.KEY, "create", "alice")

    def test_a_person_at_a_terminal_is_asked_twice_for_a_new_passphrase(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.delenv("MODEL_EXPORT_PASSPHRASE")
        monkeypatch.setattr("model_export.trust.passphrases.sys.stdin", Terminal())
        prompts, answers = [], iter(["one", "other", "same", "same", "same"])
        monkeypatch.setattr("getpass.getpass", lambda prompt: prompts.append(prompt) or next(answers))
        with pytest.raises(KeyFileError, match="differ"):
            key_files.create(Path("alice"))
        made = key_files.create(Path("alice"))
        assert key_files.open_signer(Path("alice.key")).public_key.keyid == made.keyid
        assert len(prompts) == 5
        assert prompts[-1] == "Passphrase of the key alice: "

    def test_a_passphrase_is_no_option(self):
        assert keys_command("create", "alice", "--passphrase", "x").exit_code == ExitCode.USAGE

    def test_a_private_key_is_not_taken_for_a_public_one(self, people: Path):
        text = refused(
            ExitCode.KEY, "init", "fleet", "--root", "alice.key", "--targets", "bob.pub", "--online", "online.json"
        )
        assert "give the file alice.pub" in text
        begin()
        assert "sign with alice.key" in refused(ExitCode.KEY, "sign", "fleet", "--key", "alice.pub")
        (people / "broken.pub").write_text("{}")
        (people / "broken.key").write_text("-----BEGIN PRIVATE KEY-----")
        for name in ("broken.pub", "broken.key", "absent.key"):
            refused(ExitCode.KEY, "sign", "fleet", "--key", name)

    @pytest.mark.parametrize("name", ["../../evil", "a/b", "a b", "\u001b[31mred", "x" * 65, 7, None, ""])
    def test_a_name_that_somebody_else_gave_is_no_path_and_no_trick(self, people: Path, name: object):
        document = json.loads((people / "bob.pub").read_text()) | {"name": name}
        (people / "sent.pub").write_text(json.dumps(document))
        begin("--key", "alice.key")
        assert "it is no public key" in refused(ExitCode.KEY, "allow", "fleet", "digits", "sent.pub")
        assert not list(people.rglob("*evil*"))

    def test_what_people_see_of_a_key_is_its_id_besides_the_name_that_it_was_given(self, people: Path):
        document = json.loads((people / "carol.pub").read_text())
        (people / "sent.pub").write_text(json.dumps(document | {"name": "bob"}))
        begin("--key", "alice.key")
        done = run("allow", "fleet", "digits", "sent.pub")
        assert done["signers"]["releases.digits"] == [f"bob {document['keyid'][:16]}"]

    def test_a_key_behind_a_signer_signs_like_one_in_a_file(self, people: Path):
        private = ec.generate_private_key(ec.SECP256R1())
        (people / "device.pem").write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (people / "public.pem").write_bytes(public)
        run("create", "device", "--signer", f"file2:{people / 'device.pem'}", "--public-key", "public.pem")
        assert not (people / "device.key").exists()
        begin("--key", "alice.key")
        run("rotate", "fleet", "targets", "--to", "device.pub", "--key", "alice.key")
        assert roles(run("show", "fleet")) == {"root": (2, 0), "targets": (1, 1)}
        assert roles(run("sign", "fleet", "--key", "device.pub")) == {"root": (2, 0), "targets": (1, 0)}

    def test_a_signer_has_to_sign_for_the_key_that_is_given(self, people: Path):
        (people / "other.pem").write_bytes(
            ec.generate_private_key(ec.SECP256R1())
            .public_key()
            .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        )
        uri = f"file2:{people / 'alice.key'}"
        refused(ExitCode.KEY, "create", "device", "--signer", uri, "--public-key", "other.pem")
        refused(ExitCode.KEY, "create", "device", "--signer", "abacus:7", "--public-key", "other.pem")
        refused(ExitCode.USAGE, "create", "device", "--signer", uri)
        assert not (people / "device.pub").exists()


class TestDrafts:
    """A change waits in the folder until enough people have signed."""

    def test_a_fleet_begins_with_root_and_targets(self, people: Path):
        assert roles(begin()) == {"root": (1, 1), "targets": (1, 1)}
        done = run("sign", "fleet", "--key", "alice.key")
        assert roles(done) == {"root": (1, 0), "targets": (1, 0)}
        assert names(done["signers"]["root"]) == ["alice"]
        root = checking.pinned_root((people / "fleet" / "1.root.json").read_bytes())
        checking.verify_chain(root.to_bytes(), [], (people / "fleet" / "1.targets.json").read_bytes(), {})
        assert "another folder" in refused(
            ExitCode.DESTINATION,
            "init",
            "fleet",
            "--root",
            "bob.pub",
            "--targets",
            "bob.pub",
            "--online",
            "online.json",
        )

    def test_two_of_three_sign_in_any_order(self, people: Path):
        run(
            "init", "fleet", "--root", "alice.pub", "--root", "bob.pub", "--root", "carol.pub", "--threshold", 2,
            "--targets", "bob.pub", "--online", "online.json",
        )  # fmt: skip
        assert roles(run("sign", "fleet", "--key", "carol.key"))["root"] == (1, 1)
        assert "nothing in fleet waits" in refused(ExitCode.USAGE, "sign", "fleet", "--key", "carol.key")
        assert roles(run("sign", "fleet", "--key", "bob.key")) == {"root": (1, 0), "targets": (1, 0)}
        states = {role["role"]: role for role in run("show", "fleet")["roles"]}
        assert names(states["root"]["signed"]) == ["bob", "carol"]
        assert names(states["root"]["unsigned"]) == ["alice"]

    def test_a_change_of_a_draft_is_the_same_draft_and_needs_new_signatures(self, people: Path):
        begin("--key", "alice.key")
        assert roles(run("allow", "fleet", "digits", "bob.pub"))["targets"] == (2, 1)
        done = run("allow", "fleet", "words", "bob.pub", "carol.pub", "--threshold", 2, "--key", "alice.key")
        assert roles(done)["targets"] == (2, 0)
        assert [names(done["signers"][f"releases.{model}"]) for model in ("digits", "words")] == [
            ["bob"],
            ["bob", "carol"],
        ]
        assert roles(run("allow", "fleet", "digits", "carol.pub"))["targets"] == (3, 1)

    def test_a_revoked_key_loses_every_role_or_the_one_that_is_named(self, people: Path):
        begin("--key", "alice.key")
        run("allow", "fleet", "digits", "bob.pub", "carol.pub")
        run("allow", "fleet", "words", "bob.pub", "carol.pub", "--key", "alice.key")
        done = run("revoke", "fleet", "bob", "--role", "releases.words", "--key", "alice.key")
        assert [names(done["signers"][f"releases.{model}"]) for model in ("digits", "words")] == [
            ["bob", "carol"],
            ["carol"],
        ]
        done = run("revoke", "fleet", "bob.pub", "--key", "alice.key")
        assert names(done["signers"]["releases.digits"]) == ["carol"]
        assert "has no role" in refused(ExitCode.USAGE, "revoke", "fleet", "bob")
        assert "keys rotate" in refused(ExitCode.USAGE, "revoke", "fleet", "carol")
        assert "no key of this fleet" in refused(ExitCode.USAGE, "revoke", "fleet", "nobody")
        keyid = json.loads((people / "alice.pub").read_text())["keyid"]
        assert "needs 1 signatures" in refused(ExitCode.USAGE, "revoke", "fleet", keyid[:12])

    def test_a_root_that_changes_hands_is_signed_by_both(self, people: Path):
        begin("--key", "alice.key")
        assert roles(run("rotate", "fleet", "root", "--to", "bob.pub", "--key", "bob.key"))["root"] == (2, 1)
        waiting = run("show", "fleet")["roles"][0]
        assert (names(waiting["signed"]), names(waiting["unsigned"])) == (["bob"], ["alice"])
        assert roles(run("sign", "fleet", "--key", "alice.key"))["root"] == (2, 0)
        run("renew", "fleet", "root", "--key", "bob.key")
        assert roles(run("show", "fleet"))["root"] == (3, 0)
        files = [(people / "fleet" / f"{version}.root.json").read_bytes() for version in (1, 2, 3)]
        root = checking.pinned_root(files[0])
        for data in files[1:]:
            root = checking.next_root(root, data)

    def test_the_hub_s_keys_are_rotated_to_those_that_it_has_now(self, people: Path):
        begin("--key", "alice.key")
        assert "has these keys already" in refused(
            ExitCode.USAGE, "rotate", "fleet", "online", "--online", "online.json"
        )
        answer = json.loads((people / "online.json").read_text())
        new = {role: keys.to_document(keys.generate().public_key) for role in ("timestamp", "channels")}
        (people / "online.json").write_text(json.dumps(answer | {"online": answer["online"] | new}))
        done = run("rotate", "fleet", "online", "--online", "online.json", "--key", "alice.key")
        assert roles(done) == {"root": (2, 0), "targets": (2, 0)}
        for role in new:
            assert done["signers"][role] == [new[role]["keyid"][:16]]

    def test_a_key_of_the_hub_is_no_key_of_people(self, people: Path):
        online = json.loads((people / "online.json").read_text())["online"]
        for role, document in online.items():
            (people / f"{role}.pub").write_text(json.dumps(document))
            text = refused(
                ExitCode.USAGE,
                "init",
                "x",
                "--root",
                f"{role}.pub",
                "--targets",
                "alice.pub",
                "--online",
                "online.json",
            )
            assert "a key of the hub" in text
        begin("--key", "alice.key")
        assert "could publish by itself" in refused(ExitCode.USAGE, "allow", "fleet", "digits", "retrained.pub")
        assert "hold a key of people" in refused(ExitCode.USAGE, "rotate", "fleet", "root", "--to", "timestamp.pub")
        assert roles(run("show", "fleet")) == {"root": (1, 0), "targets": (1, 0)}

    def test_what_nobody_asks_for_sensibly_is_refused(self, people: Path):
        begin("--key", "alice.key")
        refused(ExitCode.USAGE, "rotate", "fleet", "root")
        refused(ExitCode.USAGE, "rotate", "fleet", "nothing", "--to", "bob.pub")
        refused(ExitCode.USAGE, "rotate", "fleet", "root", "--to", "bob.pub", "--threshold", 2)
        refused(ExitCode.USAGE, "rotate", "fleet", "online")
        refused(ExitCode.USAGE, "renew", "fleet", "timestamp")
        refused(ExitCode.USAGE, "renew", "fleet", "targets", "--forget", "releases/digits/1")
        refused(ExitCode.USAGE, "allow", "fleet", "../digits", "bob.pub")
        refused(ExitCode.UNTRUSTED, "allow", "nowhere", "digits", "bob.pub")
        (people / "online.json").write_text("{}")
        refused(ExitCode.UNTRUSTED, "rotate", "fleet", "online", "--online", "online.json")
        refused(ExitCode.KEY, "rotate", "fleet", "online", "--online", "absent.json")
        assert roles(run("show", "fleet")) == {"root": (1, 0), "targets": (1, 0)}

    def test_a_damaged_file_is_found(self, people: Path):
        begin("--key", "alice.key")
        path = people / "fleet" / "1.root.json"
        path.write_bytes(path.read_bytes()[:-9])
        assert "1.root.json" in refused(ExitCode.UNTRUSTED, "show", "fleet")


class TestWithAHub:
    """Between a folder and a hub."""

    @pytest.fixture
    def hub(self, people: Path) -> Iterator[SmallHub]:
        with SmallHub(SecureFleet()).running() as server:
            yield server

    def start(self, hub: SmallHub) -> None:
        run("init", "fleet", "--root", "alice.pub", "--targets", "alice.pub", "--hub", hub.url, "--key", "alice.key")

    def test_what_is_signed_is_sent_once_in_order(self, hub: SmallHub):
        self.start(hub)
        assert run("push", "fleet", "--hub", hub.url)["files"] == ["1.root.json", "1.targets.json"]
        assert run("push", "fleet", "--hub", hub.url)["files"] == []
        run("allow", "fleet", "digits", "bob.pub", "--key", "alice.key")
        run("renew", "fleet", "root", "--key", "alice.key")
        run("renew", "fleet", "targets", "--key", "alice.key")
        assert run("push", "fleet", "--hub", hub.url)["files"] == ["2.root.json", "2.targets.json", "3.targets.json"]

    def test_what_lacks_signatures_is_not_sent(self, hub: SmallHub):
        self.start(hub)
        run("allow", "fleet", "digits", "bob.pub")
        assert re.search(
            "alice [0-9a-f]{16} could sign", refused(ExitCode.SIGNATURES_MISSING, "push", "fleet", "--hub", hub.url)
        )
        assert not hub.fleet.newest

    def test_somebody_else_fetches_it_with_the_root_alone(self, hub: SmallHub, people: Path):
        self.start(hub)
        run("allow", "fleet", "digits", "bob.pub", "--key", "alice.key")
        run("push", "fleet", "--hub", hub.url)
        hub.fleet.publishers["digits"] = keys.from_pem((people / "bob.key").read_bytes())
        hub.fleet.release("digits", "sha256:" + "a" * 64, 10)
        assert "somebody whom you trust" in refused(ExitCode.UNTRUSTED, "pull", "mine", "--hub", hub.url)
        (people / "mine").mkdir()
        (people / "mine" / "1.root.json").write_bytes((people / "fleet" / "1.root.json").read_bytes())
        files = run("pull", "mine", "--hub", hub.url)["files"]
        assert files == ["2.targets.json", "1.releases.digits.json"]
        assert run("pull", "mine", "--hub", hub.url)["files"] == []
        assert run("show", "mine")["releases"] == {"releases/digits/1": "sha256:" + "a" * 64}

    def test_what_has_expired_can_be_fetched_and_renewed(self, hub: SmallHub, people: Path):
        self.start(hub)
        run("push", "fleet", "--hub", hub.url)
        for role in ("root", "targets"):
            setattr(hub.fleet, f"{role}_key", keys.from_pem((people / "alice.key").read_bytes()))
            hub.fleet.now -= timedelta(days=800)
            hub.fleet.put(role, hub.fleet.draft(role))
        run("pull", "fleet", "--hub", hub.url)
        for role in ("root", "targets"):
            run("renew", "fleet", role, "--key", "alice.key")
        assert run("push", "fleet", "--hub", hub.url)["files"] == ["3.root.json", "3.targets.json"]

    def test_who_was_overtaken_pulls_and_makes_the_change_again(self, hub: SmallHub, people: Path):
        self.start(hub)
        run("push", "fleet", "--hub", hub.url)
        run("allow", "fleet", "words", "carol.pub")
        hub.fleet.targets_key = keys.from_pem((people / "alice.key").read_bytes())
        hub.fleet.put("targets", hub.fleet.draft("targets"))
        run("pull", "fleet", "--hub", hub.url)
        run("allow", "fleet", "words", "carol.pub", "--key", "alice.key")
        assert run("push", "fleet", "--hub", hub.url)["files"] == ["3.targets.json"]

    def test_a_stolen_publisher_s_release_is_forgotten(self, hub: SmallHub, people: Path):
        self.start(hub)
        run("allow", "fleet", "digits", "bob.pub", "carol.pub", "--key", "alice.key")
        run("push", "fleet", "--hub", hub.url)
        hub.fleet.publishers["digits"] = keys.from_pem((people / "bob.key").read_bytes())
        for number in (1, 2):
            hub.fleet.release("digits", f"sha256:{number:064x}", 10)
        run("pull", "fleet", "--hub", hub.url)
        run("revoke", "fleet", "bob", "--key", "alice.key")
        assert roles(run("show", "fleet"))["releases.digits"] == (2, 1)
        forget = ("--forget", "releases/digits/2")
        assert "does not name" in refused(ExitCode.USAGE, "renew", "fleet", "releases.digits", "--forget", "x")
        run("renew", "fleet", "releases.digits", *forget, "--key", "carol.key")
        assert run("push", "fleet", "--hub", hub.url)["files"] == ["3.targets.json", "3.releases.digits.json"]
        assert list(hub.fleet.newest["releases.digits"].signed.targets) == ["releases/digits/1"]

    def test_the_root_in_the_folder_decides_what_is_believed(self, hub: SmallHub):
        self.start(hub)
        hub.fleet = SecureFleet.make("digits")
        assert "0 of the 1 signatures" in refused(ExitCode.UNTRUSTED, "pull", "fleet", "--hub", hub.url)

    def test_a_hub_that_signs_nothing_says_so(self, hub: SmallHub):
        hub.fleet = None
        text = refused(
            ExitCode.USAGE, "init", "fleet", "--root", "alice.pub", "--targets", "alice.pub", "--hub", hub.url
        )
        assert "insecure" in text
