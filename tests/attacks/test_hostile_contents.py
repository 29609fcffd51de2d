"""Arrays, JSON and raw bytes that a stranger sends: what lies, bursts or would run code is refused with a reason."""

from __future__ import annotations

import io
import json
import random
import tracemalloc
import zipfile

import numpy as np
import pytest

from edge_agent.flow_settings import TensorSettings
from edge_agent.flows.contents import JsonReader, NpyReader, NpzReader, RawReader, read_oip
from edge_agent.flows.ports import Rejected
from tests.attacks.hostile_contents import MODEL, npy, refused, saved, zipped


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x93NUMPY",
        b"\x93NUMPY\x07\x00" + b"\0" * 50,
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 99999999999)}"),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296)}"),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 64)}", b"\0" * 256),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,) * 99}"),
        npy(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {(1,) * 40}}}", b"\0" * 4),
        npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 64)}", b"\0" * 255),
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (1, 64)}", b"\0" * 512),
        npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (64,)}", b"\0" * 256),
        npy("{'descr': '|V0', 'fortran_order': False, 'shape': (64,)}"),
        npy("{'descr': '<U0', 'fortran_order': False, 'shape': (99999999999999,)}"),
        npy("__import__('os').abort()"),
        npy("(" * 1000),
        npy("{" + "'a': 1, " * 5000 + "}"),
        saved(np.array([{"run": "me"}], object), allow_pickle=True),
    ],
    ids=range(17),
)
def test_arrays_that_lie_or_would_run_code_are_refused(data: bytes) -> None:
    refused(NpyReader(None, 1 << 20), data)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.npy", data)
    refused(NpzReader(1 << 20), file.getvalue())


def test_a_zip_bomb_is_not_unpacked() -> None:
    bomb = zipped(("x.npy", b"\0" * (300 << 20)))
    tracemalloc.start()
    refused(NpzReader(1 << 20), bomb, "larger than max_bytes")
    assert tracemalloc.get_traced_memory()[1] < 20 << 20
    tracemalloc.stop()


def test_archives_that_are_none_or_hold_what_no_model_takes_are_refused() -> None:
    good = saved(np.zeros((1, 64), np.float32))
    whole = zipped(("x.npy", good))
    reader = NpzReader(1 << 20)
    assert reader(whole, MODEL).inputs["x"].shape == (1, 64)
    refused(reader, b"")
    refused(reader, b"PK\x03\x04" + b"\0" * 99)
    refused(reader, whole[:-30])
    refused(reader, zipped(), "0 arrays")
    refused(reader, zipped(*((f"{n}.npy", good) for n in range(65))), "65 arrays")
    refused(reader, zipped(("../x.npy", good)), "no input ../x")
    refused(reader, zipped(("x.npy", good), method=zipfile.ZIP_LZMA), "packed in a way")
    encrypted = bytearray(whole)
    encrypted[6] |= 1
    encrypted[whole.rindex(b"PK\x01\x02") + 8] |= 1
    refused(reader, bytes(encrypted))
    chance = random.Random(3)
    for _ in range(300):
        changed = bytearray(whole)
        changed[chance.randrange(len(changed))] = chance.randrange(256)
        try:
            assert reader(bytes(changed), MODEL).inputs["x"].shape == (1, 64)
        except Rejected:
            continue


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        b"[[[[[" * 20 + b"]]]]]" * 20,
        b"null",
        b'"text"',
        b"{}",
        b"[1, 2",
        b"[" + b"1," * 62 + b"1]",
        b"[" + b"1," * 64 + b"1]",
        b"[" + b'"1",' * 63 + b"1]",
        b"[" + b"null," * 63 + b"1]",
        b"[" + b"1e999," * 63 + b'"x"]',
        b"[" + b"9" * 5000 + b"]",
        b"[[1], [1, 2]]",
        b"[true]",
    ],
    ids=range(16),
)
def test_json_that_is_no_row_is_refused(data: bytes) -> None:
    refused(JsonReader(None, None), data)
    refused(JsonReader(None, {"x": ("a.b", "c")}), data)
    refused(read_oip, data)


def test_a_place_in_an_object_cannot_lead_elsewhere() -> None:
    reader = JsonReader(None, {"x": ("a.b",)})
    assert reader(json.dumps({"a": {"b": [0.5] * 64}}).encode(), MODEL).inputs["x"].shape == (1, 64)
    for found in ({"a": [1]}, {"a": {"c": 1}}, {"a": {"b": {"d": 1}}}, {"a.b": [0.5] * 64}, [1], {"a": {"b": None}}):
        refused(reader, json.dumps(found).encode())


def test_a_request_in_a_message_can_name_no_shared_memory_and_no_bytes_beyond_itself() -> None:
    for parameters in (
        {"shared_memory_region": "frame", "shared_memory_byte_size": 256},
        {"binary_data_size": 256},
    ):
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, 64], "parameters": parameters}
        refused(read_oip, json.dumps({"inputs": [tensor]}).encode())


def test_an_id_that_is_no_text_is_refused() -> None:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 64], "data": [0.5] * 64}
    for identity in ('"\\ud800"', "5", "null", f'"{"x" * 300}"'):
        refused(read_oip, f'{{"id": {identity}, "inputs": [{json.dumps(tensor)}]}}'.encode())


@pytest.mark.parametrize("size", [0, 1, 255, 257, 1 << 16])
def test_raw_bytes_of_another_size_are_refused(size: int) -> None:
    refused(RawReader(None, TensorSettings(datatype="FP32", shape=(1, 64))), b"\0" * size, "256 bytes")


def test_raw_rows_are_counted_by_their_bytes() -> None:
    reader = RawReader(None, TensorSettings(datatype="UINT8", shape=(-1, 64)))
    assert reader(b"\7" * 192, MODEL).inputs["x"].shape == (3, 64)
    for size in (0, 63, 65):
        refused(reader, b"\0" * size)
