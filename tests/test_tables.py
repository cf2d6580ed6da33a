"""Rows and columns of tables, counted as the standard library's readers count them."""

from __future__ import annotations

import csv
import gzip
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelbuild.sources.tables import table_shape

PARQUET = Path(__file__).parent / "golden" / "table.parquet"
"""Written by pyarrow 26: 3 rows; `point` is a struct that holds a list."""


def shape_of(folder: Path, name: str, content: bytes | str) -> object:
    path = folder / name
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return table_shape(path)


@pytest.mark.parametrize(
    ("name", "content", "shape"),
    [
        ("a.csv", "x,y\n1,2\n3,4\n", (2, ("x", "y"))),
        ("a.csv", "x,y\n1,2\n3,4", (2, ("x", "y"))),
        ("a.CSV", "x,y\r\n1,2\r\n\r\n3,4\r\n", (2, ("x", "y"))),
        ("a.csv", "\n\nx,y\n\n\n1,2\n\n\n\n3,4\n\n", (2, ("x", "y"))),
        ("a.csv", "\ufeffx,y\n1,2\n", (1, ("x", "y"))),
        ("a.csv", "x;y\n1,5;2\n", (1, ("x", "y"))),
        ("a.csv", "x\n1\n", (1, ("x",))),
        ("a.csv", "x,y\n", (0, ("x", "y"))),
        ("a.csv", ",y\n0,1\n", (1, ("", "y"))),
        ("a.csv", '"x\ny",z\n"1\n\n1",2\n"a ""b""\n",4\n', (2, ("x\ny", "z"))),
        ("a.csv", "größe\n1\n", (1, ("größe",))),
        ("a.csv", "0.0,5\n1,2\n", (2, ("2 without names",))),
        ("a.csv", "150,4,setosa\n5.1,3.5,0\n", (1, ("150", "4", "setosa"))),
        ("a.csv.gz", "x,y\n1,2\n", (1, ("x", "y"))),
        ("a.tsv", "x\ty, z\n1\t2\n", (1, ("x", "y, z"))),
        ("a.tsv.gz", "x\ty\n1\t2\n", (1, ("x", "y"))),
        ("a.jsonl", '{"b": 1, "a": 2}\n{"c": 3}\n', (2, ("b", "a"))),
        ("a.jsonl", '\n{"b": "\\n\\""}\n\n\n{"b": 1}', (2, ("b",))),
        ("a.ndjson.gz", "[1]\n[2]\n", (2, ())),
        ("a.csv", "", None),
        ("a.csv", b"x,\xff\n1,2\n", None),
        ("a.csv", "x,y\n1,2\n".encode("utf-16"), None),
        ("a.csv", "x,y\r1,2\r", None),
        ("a.csv", 'x,y\n1,"' + "z" * 200_000, None),
        ("a.csv.gz", b"", None),
        ("a.jsonl", "not json\n", None),
        ("a.jsonl", "", None),
        ("a.npy", b"\x93NUMPY", None),
        ("a.npy", b"\x93NUMPY\x01\x00\x0a\x00__import__", None),
        ("a.npz", b"PK", None),
        ("a.parquet", b"PAR1", None),
        ("a.txt", "x,y\n1,2\n", None),
        ("csv", "x,y\n1,2\n", None),
    ],
)
def test_rows_and_columns(name: str, content: bytes | str, shape: object, tmp_path: Path) -> None:
    assert shape_of(tmp_path, name, content) == shape


def test_what_is_not_there_or_no_file_has_no_shape(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    assert table_shape(tmp_path / "folder.csv") is None
    assert table_shape(tmp_path / "absent.csv") is None


def test_a_gzip_file_that_is_cut_off_has_no_shape(tmp_path: Path) -> None:
    packed = gzip.compress(b"x,y\n" + b"1,2\n" * 1000)
    (tmp_path / "a.csv.gz").write_bytes(packed[:-12])
    assert table_shape(tmp_path / "a.csv.gz") is None


cells = st.text(st.sampled_from('ab1 ,;"\n\t'), max_size=6)


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(st.lists(cells, min_size=2, max_size=3), min_size=1, max_size=30))
def test_rows_are_counted_as_a_csv_reader_counts_them(
    rows: list[list[str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["a", "b"])
        writer.writerows(rows)
    with path.open(newline="") as file:
        expected = sum(1 for row in csv.reader(file) if row) - 1
    assert table_shape(path) == (expected, ("a", "b"))


def test_records_that_cross_the_pieces_in_which_a_file_is_read_count_once(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["n", "text"])
        for number in range(80_000):
            quoted = number % 3000 > 1500  # pieces with and without quotes
            writer.writerow([number, ("line\n" * (number % 19)) if quoted else "x" * 50])
    assert path.stat().st_size > 3 << 20
    assert table_shape(path) == (80_000, ("n", "text"))


def test_wide_tables_name_their_first_columns(tmp_path: Path) -> None:
    header = ",".join(f"c{number}" for number in range(5000))
    shape = table_shape_of_text(tmp_path / "a.csv", header + "\n")
    assert shape == (0, (*(f"c{number}" for number in range(199)), "and 4801 more"))


def table_shape_of_text(path: Path, text: str) -> object:
    path.write_text(text)
    return table_shape(path)


def test_arrays_have_rows_and_archives_name_them(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((1797, 64)))
    np.save(tmp_path / "scalar.npy", np.float32(3))
    np.savez(tmp_path / "a.npz", x=np.zeros((5, 2)), y=np.zeros(5))
    np.savez_compressed(tmp_path / "uneven.npz", x=np.zeros((5, 2)), y=np.zeros(6))
    assert table_shape(tmp_path / "a.npy") == (1797, ())
    assert table_shape(tmp_path / "scalar.npy") is None
    assert table_shape(tmp_path / "a.npz") == (5, ("x", "y"))
    assert table_shape(tmp_path / "uneven.npz") is None


def test_the_fields_of_a_structured_array_are_its_columns(tmp_path: Path) -> None:
    array = np.zeros(7, dtype=[("id", "i4"), ("größe", "f8", (3,))])
    np.save(tmp_path / "a.npy", array)
    assert table_shape(tmp_path / "a.npy") == (7, ("id", "größe"))


@pytest.mark.filterwarnings("ignore:Stored array in format 3.0")
@pytest.mark.parametrize(
    "fields",
    [
        [("one", "f4")],
        [("it's", "i4"), ("größe, cm", "M8[s]"), ("名", "S3"), ("o", "O")],
        [(f"column {number}", "<f8", (2, 3)) for number in range(150)],
    ],
)
def test_fields_have_the_names_that_numpy_wrote(tmp_path: Path, fields: list[tuple]) -> None:
    np.save(tmp_path / "a.npy", np.zeros(2, dtype=fields), allow_pickle=True)
    assert table_shape(tmp_path / "a.npy") == (2, tuple(field[0] for field in fields))


def test_fields_in_fields_give_rows_alone(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(2, dtype=[("a", [("x", "f4")]), ("b", "f4")]))
    assert table_shape(tmp_path / "a.npy") == (2, ())


def test_an_array_of_objects_is_not_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"a": 1}, None]), allow_pickle=True)
    assert table_shape(tmp_path / "a.npy") == (2, ())


def test_parquet_is_read_from_its_footer() -> None:
    assert table_shape(PARQUET) == (3, ("id", "name", "point", "größe"))


def test_a_packed_parquet_file_is_no_error(tmp_path: Path) -> None:
    with PARQUET.open("rb") as source, gzip.open(tmp_path / "a.parquet.gz", "wb") as target:
        shutil.copyfileobj(source, target)
    assert table_shape(tmp_path / "a.parquet.gz") == (3, ("id", "name", "point", "größe"))


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damage_never_raises(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    suffix = data.draw(st.sampled_from([".parquet", ".csv", ".csv.gz", ".npy", ".npz", ".jsonl"]))
    good = PARQUET.read_bytes() if suffix == ".parquet" else b""
    at = data.draw(st.integers(0, max(len(good) - 8, 0)))
    noise = data.draw(st.binary(max_size=20))
    path = tmp_path_factory.getbasetemp() / f"damaged{suffix}"
    path.write_bytes(good[:at] + noise + good[at + len(noise) :])
    table_shape(path)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    peaks = []
    for rows in (100_000, 1_000_000):
        path = tmp_path / "a.jsonl"
        path.write_bytes(b'{"a": 1}\n' * rows)
        tracemalloc.start()
        assert table_shape(path) == (rows, ("a",))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


def test_a_line_without_an_end_is_no_table(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"x,y\n1,2\n3," + b"4" * (20 << 20) + b"\n")
    assert table_shape(path) is None
