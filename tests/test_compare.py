"""Two outputs are compared bit by bit, and what differs is said by file, tensor and value."""

from __future__ import annotations

import json
import os
import shutil
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from test_tensor_files import tensor_pickle, torch_file

from modelbuild.cli.comparison_text import comparison_text
from modelbuild.errors import ModelbuildError
from modelbuild.store.tensor_files import numbers
from modelbuild.verify import tensor_values
from modelbuild.verify.compare import compare_trees
from modelbuild.verify.comparison import (
    FileComparison,
    Status,
    TensorComparison,
    TensorDifference,
    TreeComparison,
)

GOLDEN = Path(__file__).parent / "golden" / "torch"
Array = np.ndarray[Any, Any]


class Outputs:
    """Two folders to fill, and their comparison."""

    def __init__(self, root: Path) -> None:
        self.first, self.second = root / "first", root / "second"
        self.first.mkdir(exist_ok=True)
        self.second.mkdir(exist_ok=True)

    def write(self, name: str, first: bytes, second: bytes) -> None:
        (self.first / name).write_bytes(first)
        (self.second / name).write_bytes(second)

    def compare(self) -> TreeComparison:
        return compare_trees(self.first, self.second)

    def text(self) -> str:
        return comparison_text(self.compare())

    def file(self) -> FileComparison:
        (file,) = self.compare().files
        return file

    def tensor(self, first: Array, second: Array) -> TensorDifference | None:
        np.save(self.first / "a.npy", first)
        np.save(self.second / "a.npy", second)
        (file,) = self.compare().files
        assert file.note is None or file.note == "same tensors, other bytes"
        return file.tensors[0].difference if file.tensors else None


@pytest.fixture
def outputs(tmp_path: Path) -> Outputs:
    return Outputs(tmp_path)


# trees


def test_the_same_trees_are_identical(outputs: Outputs) -> None:
    for root in (outputs.first, outputs.second):
        (root / "deep" / "empty").mkdir(parents=True)
        (root / "deep" / "model.bin").write_bytes(os.urandom(8))
        shutil.copy(GOLDEN / "state_dict.pt", root)
        (root / "link").symlink_to("deep/model.bin")
    shutil.copy(outputs.first / "deep" / "model.bin", outputs.second / "deep")
    comparison = outputs.compare()
    assert comparison.identical
    assert comparison.first_difference is None
    assert [file.path for file in comparison.files] == [
        "deep/empty",
        "deep/model.bin",
        "link",
        "state_dict.pt",
    ]
    assert comparison.to_json() == {"identical": True, "same_files": 4, "files": []}
    assert comparison_text(comparison) == "identical: 4 files"


def test_files_of_one_side_are_named(outputs: Outputs) -> None:
    outputs.write("both", b"", b"")
    (outputs.first / "a").write_bytes(b"")
    (outputs.second / "b").mkdir()
    assert outputs.text() == ("a  only in first\nb  only in second\nthe same in both: 1 file")
    assert not outputs.compare().identical


def change_mode(outputs: Outputs) -> str:
    outputs.write("x", b"1", b"1")
    (outputs.second / "x").chmod(0o755)
    return "x  other kind: file in first, executable file in second"


def change_mode_and_content(outputs: Outputs) -> str:
    outputs.write("x", b"\0", b"\1")
    (outputs.first / "x").chmod(0o755)
    return "x  different: executable file in first, file in second\n  first different byte: 0"


def change_link(outputs: Outputs) -> str:
    (outputs.first / "x").symlink_to("a")
    (outputs.second / "x").symlink_to("b")
    return "x  other kind: link to a in first, link to b in second"


def change_file_to_link(outputs: Outputs) -> str:
    (outputs.first / "x").write_bytes(b"a")
    (outputs.second / "x").symlink_to("/etc/passwd")
    return "x  other kind: file in first, link to /etc/passwd in second"


def change_file_to_folder(outputs: Outputs) -> str:
    (outputs.first / "x").write_bytes(b"a")
    (outputs.second / "x").mkdir()
    return "x  other kind: file in first, folder in second"


def make_pipes(outputs: Outputs) -> str:
    os.mkfifo(outputs.first / "x")
    os.mkfifo(outputs.second / "x")
    return "x  other kind: special file in first, special file in second"


@pytest.mark.parametrize(
    "change",
    [
        change_mode,
        change_mode_and_content,
        change_link,
        change_file_to_link,
        change_file_to_folder,
        make_pipes,
    ],
)
def test_modes_links_and_kinds_are_compared(
    outputs: Outputs, change: Callable[[Outputs], str]
) -> None:
    wanted = change(outputs)
    assert outputs.text() == wanted
    assert not outputs.compare().identical


def test_links_are_not_followed(outputs: Outputs, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    for root in (outputs.first, outputs.second):
        (root / "loop").symlink_to(".")
        (root / "out").symlink_to("../outside")
    assert [file.path for file in outputs.compare().files] == ["loop", "out"]


def test_names_that_no_terminal_should_see_are_escaped(outputs: Outputs) -> None:
    (outputs.first / "new\nline\x1b[31m").write_bytes(b"")
    Path(os.fsdecode(os.fsencode(outputs.first) + b"/\xff.txt")).write_bytes(b"")
    comparison = outputs.compare()
    assert comparison_text(comparison) == (
        "new\\nline\\x1b[31m  only in first\n\\udcff.txt  only in first"
    )
    assert json.dumps(comparison.to_json(), ensure_ascii=False).encode()


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelbuildError) as caught:
        compare_trees(tmp_path, tmp_path / "gone")
    assert str(caught.value) == (
        f"{tmp_path} and {tmp_path}/gone can't be compared\n"
        f"  reason: No such file or directory: {tmp_path}/gone"
    )


def test_many_files_are_folded(outputs: Outputs) -> None:
    for number in range(60):
        outputs.write(f"{number:02}", b"\0", b"\1")
    lines = outputs.text().splitlines()
    assert len(lines) == 101
    assert lines[-1] == "and 10 more files that differ"
    assert len(outputs.compare().files) == 60


# text and bytes


def test_the_first_line_of_a_text_that_differs_is_shown(outputs: Outputs) -> None:
    outputs.write("a.txt", b"one\ntwo\nthree\nfour\n", b"one\ntwo\nthre\xc3\xa9\nfuor\n")
    assert outputs.text() == ("a.txt  different\n  line 3\n    first:  three\n    second: thre\xe9")
    file = outputs.file()
    assert file.offset == 12
    assert file.line is not None
    assert file.line.to_json() == {"number": 3, "first": "three", "second": "thre\xe9"}


def test_the_end_of_a_text_is_shown(outputs: Outputs) -> None:
    outputs.write("a.txt", b"one\ntwo\n", b"one\n")
    assert outputs.text() == ("a.txt  different\n  line 2\n    first:  two\n    second: (the end)")


def test_lines_are_counted_across_chunks_and_long_ones_are_cut(outputs: Outputs) -> None:
    start = b"line\n" * 700_000 + b"x" * 3_000_000
    outputs.write("a.txt", start + b"1" + b"y" * 3_000_000, start + b"2" + b"y" * 3_000_000)
    line = outputs.file().line
    assert line is not None
    assert line.number == 700_001
    assert line.first == "x" * 80 + "1" + "y" * 79
    assert line.second == "x" * 80 + "2" + "y" * 79


@pytest.mark.parametrize(
    ("first", "second", "offset"),
    [
        (b"\0\1\2", b"\0\1\3", 2),
        (b"caf\xe9", b"caf\xe8", 3),
        (b"one", b"one\n", 3),
        (b"", b"\0", 0),
    ],
)
def test_where_a_line_shows_nothing_the_first_byte_is_named(
    outputs: Outputs, first: bytes, second: bytes, offset: int
) -> None:
    outputs.write("a", first, second)
    assert outputs.text() == f"a  different\n  first different byte: {offset}"


def test_a_cut_line_does_not_break_characters(outputs: Outputs) -> None:
    euros = "€" * 200
    outputs.write("a", f"{euros}1{euros}".encode(), f"{euros}2{euros}".encode())
    line = outputs.file().line
    assert line is not None
    assert line.first is not None
    assert set(line.first) == {"€", "1"}


# tensors


def safetensors(tensors: dict[str, Array], metadata: dict[str, str] | None = None) -> bytes:
    names = {"float32": "F32", "int64": "I64"}
    header: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    data = b""
    for name, values in tensors.items():
        begin = len(data)
        data += values.tobytes()
        header[name] = {
            "dtype": names[values.dtype.name],
            "shape": list(values.shape),
            "data_offsets": [begin, len(data)],
        }
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def weights() -> Array:
    return np.random.default_rng(0).standard_normal((64, 32)).astype(np.float32)


def test_a_tensor_that_differs_is_described(outputs: Outputs) -> None:
    first, second = weights(), weights()
    for index in [(3, 17), (3, 18), (63, 31)]:
        second[index] = np.nextafter(np.nextafter(second[index], np.inf), np.inf)
    bias = np.zeros(3, np.float32)
    outputs.write(
        "model.safetensors",
        safetensors({"bias": bias, "layer1.weight": first}),
        safetensors({"bias": bias, "layer1.weight": second}),
    )
    absolute = abs(first.astype(float) - second).max()
    relative = (abs(first.astype(float) - second) / np.maximum(abs(first), abs(second))).max()
    assert outputs.text() == (
        "model.safetensors  different\n"
        "  layer1.weight  float32[64,32]  3 of 2,048 values differ, at most "
        f"{absolute:.2g} abs, {relative:.2g} rel, 2 ulp, first at [3,17]"
    )
    (tensor,) = outputs.file().tensors
    assert tensor.difference is not None
    assert tensor.difference.largest_abs == absolute
    assert tensor.difference.largest_rel == pytest.approx(relative, rel=1e-9)
    assert outputs.file().same_tensors == 1


def test_the_json_of_a_comparison(outputs: Outputs) -> None:
    outputs.write(
        "m.safetensors",
        safetensors({"a": np.array([1, 2, 3])}, {"epoch": "1"}),
        safetensors({"a": np.array([1, 7, 3]), "b": np.array([1])}, {"epoch": "2"}),
    )
    outputs.write("same", b"", b"")
    assert outputs.compare().to_json() == {
        "identical": False,
        "same_files": 1,
        "files": [
            {
                "path": "m.safetensors",
                "status": "different",
                "note": None,
                "offset": None,
                "line": None,
                "tensors": [
                    {
                        "name": "a",
                        "status": "different",
                        "first": "int64[3]",
                        "second": "int64[3]",
                        "difference": {
                            "differing": 1,
                            "values": 3,
                            "first": [1],
                            "measured": 1,
                            "largest_abs": 5,
                            "largest_rel": None,
                            "largest_ulps": None,
                            "not_finite": 0,
                        },
                        "note": None,
                    },
                    {
                        "name": "b",
                        "status": "only in second",
                        "first": None,
                        "second": "int64[1]",
                        "difference": None,
                        "note": None,
                    },
                ],
                "same_tensors": 0,
                "values": [{"name": "__metadata__.epoch", "first": "1", "second": "2"}],
            }
        ],
    }


def test_tensors_of_other_types_shapes_and_sides_are_named(outputs: Outputs) -> None:
    outputs.write(
        "m.safetensors",
        safetensors({"a": np.zeros((2, 3), np.float32), "b": np.zeros(2, np.int64)}),
        safetensors({"a": np.zeros((3, 2), np.float32), "c": np.zeros(2, np.int64)}),
    )
    assert outputs.text() == (
        "m.safetensors  different\n"
        "  a  float32[2,3] in first, float32[3,2] in second\n"
        "  b  int64[2]  only in first\n"
        "  c  int64[2]  only in second"
    )


def test_many_tensors_are_folded(outputs: Outputs) -> None:
    one = {f"layer{n}": np.zeros(1, np.float32) for n in range(221)}
    two = {f"layer{n}": np.ones(1, np.float32) for n in range(221)}
    outputs.write("m.safetensors", safetensors(one), safetensors(two))
    lines = outputs.text().splitlines()
    assert len(lines) == 12
    assert lines[1] == (
        "  layer0  float32[1]  1 of 1 value differs, at most 1 abs, 1 rel, 1,065,353,216 ulp, "
        "first at [0]"
    )
    assert lines[-1] == "  and 211 more tensors"


def test_torch_files_saved_under_other_names_hold_the_same_tensors(outputs: Outputs) -> None:
    names = ["state_dict.pt", "state_dict_saved_under_another_name.pt"]
    outputs.write("model.pt", *[(GOLDEN / name).read_bytes() for name in names])
    comparison = outputs.compare()
    assert comparison_text(comparison) == "model.pt  different: same tensors, other bytes"
    assert not comparison.identical
    assert outputs.file().same_tensors == 7


def test_other_values_of_a_checkpoint_are_named(outputs: Outputs) -> None:
    names = ["checkpoint.pt", "checkpoint_later.pt"]
    outputs.write("model.pt", *[(GOLDEN / name).read_bytes() for name in names])
    assert outputs.text() == (
        "model.pt  different: same tensors, other bytes\n  epoch  3 in first, 4 in second"
    )


def test_a_file_of_tensors_that_is_damaged_is_compared_as_bytes(outputs: Outputs) -> None:
    data = (GOLDEN / "state_dict.pt").read_bytes()
    outputs.write("model.pt", data, data[:-30])
    assert outputs.text() == (
        "model.pt  different: compared as bytes, because it is not a valid zip archive\n"
        f"  first different byte: {len(data) - 30:,}"
    )


def test_files_with_other_formats_are_compared_as_bytes(outputs: Outputs) -> None:
    np.save(outputs.first / "a.npy", np.zeros(2))
    np.savez(outputs.second / "a.npz", a=np.zeros(2))
    (outputs.second / "a.npz").rename(outputs.second / "a.npy")
    assert outputs.text() == "a.npy  different\n  first different byte: 0"


def test_arrays_in_another_order_are_compared_by_value(outputs: Outputs) -> None:
    values = np.arange(24.0).reshape(2, 3, 4)
    changed = np.asfortranarray(values)
    assert outputs.tensor(values, changed) is None
    assert outputs.text() == "a.npy  different: same tensors, other bytes"
    changed[1, 2, 0] += 1
    difference = outputs.tensor(values, changed)
    assert difference is not None
    assert difference.first == (1, 2, 0)
    assert difference.largest_abs == 1
    difference = outputs.tensor(np.asfortranarray(values), changed)
    assert difference is not None
    assert difference.first == (1, 2, 0)


def test_bytes_in_another_order_are_compared_by_value(outputs: Outputs) -> None:
    values = weights()
    assert outputs.tensor(values, values.astype(">f4")) is None
    values = values.astype(">c8")
    assert outputs.tensor(values, values.astype("<c8")) is None


def test_packed_arrays_in_another_order_are_not_compared(outputs: Outputs) -> None:
    values = weights()
    np.savez_compressed(outputs.first / "a.npz", a=values)
    np.savez_compressed(outputs.second / "a.npz", a=np.asfortranarray(values))
    assert outputs.text() == (
        "a.npz  different\n"
        "  a  float32[64,32]  not compared: its values are packed, and in another order"
    )


def test_what_lies_between_the_values_of_a_view_is_not_compared(outputs: Outputs) -> None:
    view = tensor_pickle(0, (2,), (2,))
    torch_file(outputs.first / "a.pt", view, {"0": b"\1\2\3\4"})
    torch_file(outputs.second / "a.pt", view, {"0": b"\1\7\3\7"})
    assert outputs.text() == "a.pt  different: same tensors, other bytes"
    torch_file(outputs.second / "a.pt", view, {"0": b"\1\7\5\7"})
    assert outputs.text() == (
        "a.pt  different\n  (unnamed)  uint8[2]  1 of 2 values differs, at most 2 abs, first at [1]"
    )


def test_a_repeated_value_is_compared_once(outputs: Outputs) -> None:
    expanded = tensor_pickle(0, (4, 2), (0, 1))
    torch_file(outputs.first / "a.pt", expanded, {"0": b"\1\2\3\4"})
    torch_file(outputs.second / "a.pt", expanded, {"0": b"\1\5\3\4"})
    assert outputs.text() == (
        "a.pt  different\n"
        "  (unnamed)  uint8[4,2]  1 of 2 values differs, at most 3 abs, first at [0,1]"
    )
    torch_file(outputs.second / "a.pt", tensor_pickle(0, (4, 2), (2, 1)), {"0": bytes(8)})
    assert outputs.text() == (
        "a.pt  different\n  (unnamed)  uint8[4,2]  "
        "not compared: one of them repeats values that the other one stores"
    )


def test_nan_with_the_same_bits_is_the_same(outputs: Outputs) -> None:
    first = np.array([1.0, np.nan, np.inf, -0.0], np.float32)
    assert outputs.tensor(first, first.copy().astype(">f4")) is None
    second = np.array([1.0, -np.nan, np.inf, 0.0], np.float32)
    difference = outputs.tensor(first, second)
    assert difference == TensorDifference(
        differing=2,
        values=4,
        first=(1,),
        measured=2,
        largest_abs=0.0,
        largest_rel=0.0,
        largest_ulps=0,
        not_finite=1,
    )
    assert outputs.text() == (
        "a.npy  different\n  array  float32[4]  2 of 4 values differ, at most 0 abs, 0 rel, "
        "0 ulp, 1 not finite, first at [1]"
    )


def test_a_tensor_that_became_nan_has_no_largest_difference(outputs: Outputs) -> None:
    outputs.tensor(np.zeros(3, np.float32), np.full(3, np.nan, np.float32))
    assert outputs.text() == (
        "a.npy  different\n  array  float32[3]  3 of 3 values differ, 3 not finite, first at [0]"
    )


@pytest.mark.parametrize(
    ("dtype", "first", "second", "absolute"),
    [
        ("i1", -128, 127, 255),
        ("u1", 255, 0, 255),
        ("u8", 2**64 - 1, 0, 2**64 - 1),
        ("i8", -(2**63), 2**63 - 1, 2**64 - 1),
        ("?", False, True, 1),
    ],
)
def test_integers_differ_by_their_exact_amount(
    outputs: Outputs, dtype: str, first: int, second: int, absolute: int
) -> None:
    difference = outputs.tensor(np.array(first, dtype), np.array(second, dtype))
    assert difference is not None
    assert difference.largest_abs == absolute
    assert difference.largest_rel is None
    assert difference.largest_ulps is None
    assert difference.first == ()


def test_values_that_are_no_numbers_are_the_same_or_not(outputs: Outputs) -> None:
    outputs.tensor(np.array(["one", "two", "six"]), np.array(["one", "two", "ten"]))
    assert outputs.text() == (
        "a.npy  different\n  array  <U3[3]  1 of 3 values differs, first at [2]"
    )


def test_differences_beyond_the_range_of_floats_stay_finite(outputs: Outputs) -> None:
    difference = outputs.tensor(np.array([1.7e308]), np.array([-1.7e308]))
    assert difference is not None
    assert difference.largest_abs == np.finfo(float).max
    assert difference.largest_rel == 2.0
    assert json.loads(json.dumps(difference.to_json(), allow_nan=False))


def test_complex_numbers_count_part_by_part(outputs: Outputs) -> None:
    first = np.array([[1 + 1j, 2 + 2j]])
    second = np.array([[1 + 1j, 2 + 5j]])
    difference = outputs.tensor(first, second)
    assert difference is not None
    assert (difference.differing, difference.values) == (1, 4)
    assert difference.first == (0, 1)
    assert difference.largest_abs == 3


@pytest.mark.parametrize(
    ("name", "first", "second", "absolute", "ulps"),
    [
        ("BFloat16Storage", 0x3F80, 0x3F82, 2**-6, 2),
        ("HalfStorage", 0x3C00, 0x3C01, 2**-10, 1),
        ("HalfStorage", 0x8001, 0x0001, 2**-23, 2),
    ],
)
def test_small_floats_are_measured(
    outputs: Outputs, name: str, first: int, second: int, absolute: float, ulps: int
) -> None:
    pickle_ = tensor_pickle(0, (1,), (1,)).replace(b"ByteStorage", name.encode())
    torch_file(outputs.first / "a.pt", pickle_, {"0": struct.pack("<H", first)})
    torch_file(outputs.second / "a.pt", pickle_, {"0": struct.pack("<H", second)})
    difference = outputs.file().tensors[0].difference
    assert difference is not None
    assert difference.largest_abs == absolute
    assert difference.largest_ulps == ulps


def test_8_bit_floats_have_the_values_of_their_formats() -> None:
    e4m3, e5m2 = numbers._E4M3FN, numbers._E5M2
    assert [e4m3[bits] for bits in (0, 1, 8, 0x38, 0x7E, 0xB8)] == [0, 2**-9, 2**-6, 1, 448, -1]
    assert all(np.isnan(e4m3[bits]) for bits in (0x7F, 0xFF))
    halves = np.arange(256, dtype=np.uint16) << 8
    with np.errstate(invalid="ignore"):
        wanted = halves.view(np.float16).astype(float)
    wanted[~np.isfinite(wanted)] = np.nan
    assert np.array_equal(np.array(e5m2), wanted, equal_nan=True)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    data=st.data(),
    dtype=st.sampled_from(["<f8", "<f4", "<f2", "<i4", "<u2"]),
    shape=hnp.array_shapes(max_dims=4, max_side=9),
)
def test_comparison_agrees_with_numpy(
    tmp_path: Path, data: st.DataObject, dtype: str, shape: tuple[int, ...]
) -> None:
    outputs = Outputs(tmp_path)
    elements = hnp.from_dtype(np.dtype(dtype), allow_nan=False, allow_infinity=False)
    first = data.draw(hnp.arrays(dtype, shape, elements=elements))
    second = first.copy()
    for _ in range(data.draw(st.integers(0, 3))):
        index = data.draw(st.tuples(*(st.integers(0, size - 1) for size in shape)))
        second[index] = data.draw(elements)
    found = outputs.tensor(first, second)
    integers = np.dtype(f"u{first.itemsize}")
    differing = np.argwhere(first.view(integers) != second.view(integers))
    assert (found.differing if found else 0) == len(differing)
    if found:
        assert found.first == tuple(differing[0])
        wide = np.float64 if dtype[1] == "f" else np.int64
        with np.errstate(over="ignore"):
            largest = abs(first.astype(wide) - second.astype(wide)).max()
        assert found.largest_abs == min(largest, np.finfo(float).max)


def test_largest_differences_of_huge_differences_are_over_the_first_of_them(
    outputs: Outputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensor_values, "MEASURED", 1000)
    first = np.zeros(300_000, np.float32)
    second = np.full(300_000, 0.5, np.float32)
    second[200_000] = 9.0
    difference = outputs.tensor(first, second)
    assert difference is not None
    assert (difference.differing, difference.measured) == (300_000, 1000)
    assert difference.largest_abs == 0.5
    assert outputs.text() == (
        "a.npy  different\n  array  float32[300000]  300,000 of 300,000 values differ, at most "
        "0.5 abs, 1 rel, 1,056,964,608 ulp (of the first 1,000 differing values), first at [0]"
    )


def test_few_differences_in_a_large_tensor_are_found_in_constant_memory(
    outputs: Outputs,
) -> None:
    size = 16_000_000
    first = np.ones(size, np.float32)
    second = first.copy()
    second[[5_000_000, size - 1]] = 2
    np.save(outputs.first / "a.npy", first)
    np.save(outputs.second / "a.npy", second)
    del first, second
    tracemalloc.start()
    (file,) = outputs.compare().files
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert file.tensors[0].difference is not None
    assert file.tensors[0].difference.differing == 2
    assert file.tensors[0].difference.first == (5_000_000,)
    assert peak < 16 << 20


def test_names_of_tensors_are_shown_on_one_short_line() -> None:
    tensor = TensorComparison(
        name="\x1b[2J\n" + "x" * 500, status=Status.ONLY_FIRST, first="int8[1]", second=None
    )
    file = FileComparison(path="m", status=Status.DIFFERENT, tensors=(tensor,))
    text = comparison_text(TreeComparison(files=(file,)))
    assert text == f"m  different\n  \\x1b[2J\\n{'x' * 95}...  int8[1]  only in first"
