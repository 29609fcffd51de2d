from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from safetensors.numpy import save_file

from model_export.data import InputSpec, Table, bind, class_indices, read_table, split, spread
from model_export.errors import DataError
from tests.doubles import digits

F32 = np.dtype(np.float32)


def table(labels: Any, **columns: Any) -> Table:
    return Table({n: np.asarray(c) for n, c in columns.items()}, np.asarray(labels), "data.npz", "0" * 64)


def test_every_format_gives_the_same_inputs_and_labels(tmp_path: Path) -> None:
    x, y = np.arange(12, dtype=np.float32).reshape(6, 2), np.array([0, 1, 2, 0, 1, 2])
    np.savez(tmp_path / "a.npz", x=x, label=y)
    save_file({"x": x, "label": y}, tmp_path / "a.safetensors")
    (tmp_path / "a.csv").write_text("p,label,q\n" + "".join(f"{a},{c},{b}\n" for (a, b), c in zip(x, y, strict=True)))
    parquet.write_table(pa.table({"p": x[:, 0], "q": x[:, 1], "label": y}), tmp_path / "flat.parquet")
    parquet.write_table(pa.table({"x": x.tolist(), "label": y}), tmp_path / "lists.parquet")
    for name in ("a.npz", "a.safetensors", "a.csv", "flat.parquet", "lists.parquet"):
        found = read_table(tmp_path / name)
        bound = bind(found, [InputSpec("input", F32, (2,))])
        assert bound["input"].dtype == np.float32, name
        assert bound["input"].tolist() == x.tolist(), name
        assert class_indices(found, ["a", "b", "c"]).tolist() == y.tolist(), name


def test_a_pickle_in_npz_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.array([{"a": 1}], dtype=object), label=np.array([0]))
    with pytest.raises(DataError, match="pickled"):
        read_table(tmp_path / "a.npz")


@pytest.mark.parametrize("name", ["a.npz", "a.safetensors", "a.csv", "a.parquet"])
def test_a_broken_file_is_a_data_error(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(DataError):
        read_table(tmp_path / name)


def test_absent_file_unknown_format_and_absent_label_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data file"):
        read_table(tmp_path / "none.npz")
    (tmp_path / "a.xlsx").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        read_table(tmp_path / "a.xlsx")
    assert ".parquet" in caught.value.hint
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 2)), klass=np.zeros(3))
    with pytest.raises(DataError, match="klass") as caught:
        read_table(tmp_path / "a.npz")
    assert "--label-column" in caught.value.hint
    assert read_table(tmp_path / "a.npz", "klass").rows == 3
    with pytest.raises(DataError, match="'other'"):
        read_table(tmp_path / "a.npz", "other")


def test_arrays_of_different_length_and_one_hot_labels_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 2)), label=np.zeros(4))
    with pytest.raises(DataError, match="4 labels"):
        read_table(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", x=np.zeros((3, 2)), label=np.eye(3))
    with pytest.raises(DataError) as caught:
        read_table(tmp_path / "b.npz")
    assert "one-hot" in caught.value.hint


def test_a_csv_that_is_none_says_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("p,p,label\n1,2,0\n")
    with pytest.raises(DataError, match="two columns 'p'"):
        read_table(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("p;q;label\n1;2;0\n")
    with pytest.raises(DataError, match="';' between") as caught:
        read_table(tmp_path / "a.csv")
    assert "commas" in caught.value.hint


def test_json_lines_end_at_newlines_alone(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('\ufeff{"t": "one\u2028two", "y": 0}\r\n\n{"t": "three\x85", "y": 1}', "utf-8")
    assert read_table(tmp_path / "a.jsonl").columns["t"].tolist() == ["one\u2028two", "three\x85"]
    (tmp_path / "a.jsonl").write_text('{"t": "one", "y": 0}\n\n{"t": \n')
    with pytest.raises(DataError, match="line 3"):
        read_table(tmp_path / "a.jsonl")


def test_a_folder_of_parquet_keeps_its_columns_and_its_label(tmp_path: Path) -> None:
    columns = {"height": [1.0, 2.0], "weight": [3.0, 4.0], "kind": [0, 1]}
    parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
    found = read_table(tmp_path, "kind")
    assert list(found.columns) == ["height", "weight"] and found.labels.tolist() == [0, 1] and found.held_out is None
    parquet.write_table(pa.table(columns | {"holdout": [False, True]}), tmp_path / "a.parquet")
    found = read_table(tmp_path, "kind")
    assert list(found.columns) == ["height"] and found.held_out is not None and found.held_out.tolist() == [1]
    (tmp_path / "pictures" / "cat").mkdir(parents=True)
    (tmp_path / "pictures" / "cat" / "1.png").write_bytes(b"")
    with pytest.raises(DataError, match="no column 'kind'"):
        read_table(tmp_path / "pictures", "kind")


def test_empty_cells_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("p,label\n1,0\n,1\n")
    with pytest.raises(DataError, match="empty cells"):
        read_table(tmp_path / "a.csv")


def test_a_flat_row_becomes_an_image() -> None:
    bound = bind(table([0, 1], x=np.zeros((2, 64))), [InputSpec("image", F32, (1, 8, 8))])
    assert bound["image"].shape == (2, 1, 8, 8)


def test_several_inputs_are_bound_by_name() -> None:
    specs = [InputSpec("a", F32, (1,)), InputSpec("b", np.dtype(np.int64), (-1,))]
    bound = bind(table([0, 1], b=[[1, 2], [3, 4]], a=[[0.5], [1.5]]), specs)
    assert bound["a"].tolist() == [[0.5], [1.5]]
    assert bound["b"].dtype == np.int64
    with pytest.raises(DataError, match="no data for b"):
        bind(table([0, 1], a=[[0.5], [1.5]]), specs)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"x": [[0.0, np.nan], [1.0, 1.0]]}, "not finite, first in row 0"),
        ({"x": [[1e39, 0.0], [1.0, 1.0]]}, "too large"),
        ({"x": [[0.0, 1.0, 2.0], [1.0, 1.0, 1.0]]}, r"shape \[3\], the model takes \[2\]"),
        ({"p": [1.0, 2.0], "q": ["a", "b"]}, "'q' holds text"),
        ({"x": [["a", "b"], ["a", "b"]]}, "the model takes float32"),
        ({"x": np.zeros((2, 2)), "z": np.zeros((2, 2))}, "which of x, z"),
    ],
)
def test_data_that_does_not_fit_is_refused(columns: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        bind(table([0, 1], **columns), [InputSpec("input", F32, (2,))])


def test_whole_numbers_do_not_lose_their_fraction() -> None:
    with pytest.raises(DataError, match="do not fit"):
        bind(table([0], x=[[0.5]]), [InputSpec("x", np.dtype(np.int64), (1,))])


def test_labels_may_be_indices_names_or_the_estimators_values() -> None:
    names = ["cat", "dog"]
    assert class_indices(table([1, 0], x=[0, 0]), names).tolist() == [1, 0]
    assert class_indices(table([1.0, 0.0], x=[0, 0]), names).tolist() == [1, 0]
    assert class_indices(table(["dog", "cat"], x=[0, 0]), names).tolist() == [1, 0]
    assert class_indices(table([7, 3], x=[0, 0]), ["3", "7"], values=(3, 7)).tolist() == [1, 0]
    assert class_indices(table([True, False], x=[0, 0]), ["no", "yes"], values=(False, True)).tolist() == [1, 0]
    assert class_indices(table(["b", "a"], x=[0, 0]), ["a", "b"], values=("a", "b")).tolist() == [1, 0]
    assert class_indices(table([1, 0], x=[0, 0]), ["a", "b"], values=("a", "b")).tolist() == [1, 0]


def test_numbers_that_are_names_are_no_indices() -> None:
    classes = ("1", "10", "2")
    assert class_indices(table([2, 1, 10, 1], x=[0] * 4), classes, values=classes).tolist() == [2, 0, 1, 0]
    assert class_indices(table([2, 1, 10], x=[0] * 3), ["one", "ten", "two"], values=classes).tolist() == [2, 0, 1]
    assert class_indices(table([0, 1, 2], x=[0] * 3), classes).tolist() == [0, 1, 2], "0 is no name"


def test_rows_are_spread_over_a_file_that_may_be_sorted() -> None:
    rows = {"x": np.arange(1000)}
    assert spread(rows, 5)["x"].tolist() == [0, 249, 499, 749, 999]
    assert spread(rows, 5000)["x"].tolist() == list(range(1000))


@pytest.mark.parametrize("labels", [[0, 2], [0, -1], [0, 0.5], ["cat", "cow"], [0.0, np.nan]])
def test_an_unknown_label_names_its_row(labels: list[Any]) -> None:
    with pytest.raises(DataError, match="row 1"):
        class_indices(table(labels, x=[0, 0]), ["cat", "dog"])


def test_the_split_is_disjoint_complete_even_over_classes_and_repeatable() -> None:
    labels = np.sort(np.arange(300) % 3)
    calibration, validation = split(labels, 1 / 3)
    assert sorted([*calibration, *validation]) == list(range(300))
    assert np.bincount(labels[calibration]).tolist() == [33, 33, 33]
    assert [a.tolist() for a in split(labels, 1 / 3)] == [calibration.tolist(), validation.tolist()]


def test_labels_that_would_command_a_terminal(tmp_path: Path) -> None:
    labels = [f"class {n}" for n in range(9)] + ["\x1b]0;owned\x07"]
    with pytest.raises(DataError, match="cannot be shown"):
        digits.build(tmp_path / "package", labels=labels)
    assert not (tmp_path / "package").exists()
