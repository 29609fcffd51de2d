"""Keys in files, by their public half, and behind a signer's URI."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from edgeloop.trust import keys
from edgeloop.trust.errors import TrustError
from edgeloop.trust.state import TrustState
from tests.doubles.secure_fleet import SecureFleet


def test_an_encrypted_key_is_read_with_its_passphrase_alone():
    signer = keys.generate()
    pem = keys.to_pem(signer, "pass phrase, ünïcode".encode())
    assert keys.is_encrypted(pem)
    assert signer.private_bytes not in pem
    assert keys.from_pem(pem, "pass phrase, ünïcode".encode()).public_key == signer.public_key
    for wrong, why in ((b"other", "passphrase is wrong"), (None, "no passphrase was given")):
        with pytest.raises(TrustError, match=why):
            keys.from_pem(pem, wrong)


def test_an_unencrypted_key_is_read_without():
    signer = keys.generate()
    pem = keys.to_pem(signer, None)
    assert not keys.is_encrypted(pem)
    assert keys.from_pem(pem).public_key == signer.public_key
    with pytest.raises(TrustError, match="is not encrypted"):
        keys.from_pem(pem, b"x")


def test_what_cannot_sign_is_no_key():
    exchange = x25519.X25519PrivateKey.generate()
    pem = exchange.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = exchange.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for data in (pem, public, b"", b"-----BEGIN PRIVATE KEY-----\n", b"\x00" * 100):
        with pytest.raises(TrustError):
            keys.from_pem(data)
    for data in (pem, public, b""):
        with pytest.raises(TrustError):
            keys.public_from_pem(data)


def test_the_public_half_reads_back_and_a_foreign_id_is_refused():
    document = keys.to_document(keys.generate().public_key)
    assert keys.to_document(keys.from_document(document | {"name": "alice"})) == document
    broken = [
        document | {"keyid": "0" * 64},
        document | {"keytype": "rot13"},
        document | {"keyval": {"public": "zz"}},
        document | {"keyval": {"public": document["keyval"]["public"], "more": ""}},
        document | {"keyval": None},
        {key: value for key, value in document.items() if key != "scheme"},
        {},
    ]
    for each in broken:
        with pytest.raises(TrustError):
            keys.from_document(each)


def test_a_signer_is_found_by_its_uri(tmp_path: Path):
    private = ec.generate_private_key(ec.SECP256R1())
    path = tmp_path / "p256.pem"
    path.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    key = keys.public_from_pem(public)
    signer = keys.from_uri(f"file2:{path}", key)
    key.verify_signature(signer.sign(b"payload"), b"payload")
    for uri in ("nothing:1", "file2:/nowhere", "", "hsm:x"):
        with pytest.raises(TrustError, match="cannot be used"):
            keys.from_uri(uri, key)


def test_what_a_hub_says_reads_back_and_anything_else_is_refused():
    online = {role: key.public_key for role, key in SecureFleet().online.items()}
    state = TrustState(
        "fleet", online, {"root": 1, "releases.digits": 7}, ("releases/digits/7", "retrained/digits/7/1")
    )
    document = state.to_document() | {"more": 1}
    assert TrustState.from_document(document) == state
    broken = [
        {},
        [],
        None,
        document | {"online": {}},
        document | {"online": {role: {} for role in online}},
        document | {"versions": {"other": 1}},
        document | {"versions": {"root": "x"}},
        document | {"named": ["../x"]},
        document | {"named": [1]},
    ]
    for each in broken:
        with pytest.raises(TrustError):
            TrustState.from_document(each)
