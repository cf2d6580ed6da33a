"""Tensors are read from real files, and files made to harm are refused with a reason."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modelbuild.store.tensor_files import (
    Tensor,
    TensorFile,
    UnreadableTensorsError,
    count_parameters,
    read_tensors,
)

GOLDEN = Path(__file__).parent / "golden" / "torch"
EIGHTHS = {"float8_e4m3fn": [0x00, 0x20, 0x28, 0x2C, 0x30], "float8_e5m2": [0, 48, 52, 54, 56]}


def count(*shape: int) -> np.ndarray[Any, Any]:
    """The values of the golden files: 0, 1/8, 2/8, ... in C order."""
    return (np.arange(np.prod(shape, dtype=int)) / 8).reshape(shape)


def read(path: Path) -> TensorFile:
    found = read_tensors(path)
    assert found is not None
    return found


def array(tensor: Tensor, dtype: str | None = None) -> np.ndarray[Any, Any]:
    data = b"".join(tensor.chunks(in_memory_order=False))
    return np.frombuffer(data, dtype or tensor.dtype.name).reshape(tensor.stored_shape)


def refusal(path: Path) -> str:
    with pytest.raises(UnreadableTensorsError) as caught:
        read_tensors(path)
    return str(caught.value)


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


# safetensors


def safetensors(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_safetensors_gives_types_shapes_bytes_and_metadata() -> None:
    found = read(GOLDEN / "state_dict.safetensors")
    assert found.kind == "safetensors"
    assert {name: str(tensor) for name, tensor in found.tensors.items()} == {
        "0.bias": "float32[3]",
        "0.weight": "float32[3,4]",
        "1.bias": "float32[3]",
        "1.num_batches_tracked": "int64[]",
        "1.running_mean": "float32[3]",
        "1.running_var": "float32[3]",
        "1.weight": "float32[3]",
    }
    assert (array(found.tensors["0.weight"]) == count(3, 4)).all()
    assert found.values == {"__metadata__.format": "pt"}


def test_a_type_of_the_future_in_safetensors_is_read_as_bytes(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    write(path, safetensors({"a": entry("F4", [8], 0, 4)}, b"\1\2\3\4"))
    assert str(read(path).tensors["a"]) == "F4 bytes[4]"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"abc", "it has 3 bytes, and a header takes 8 at least"),
        (struct.pack("<Q", 1 << 60), "a header of 1,152,921,504,606,846,976 bytes in a file of 8"),
        (safetensors(b"[1, 2]"), "the header is not a JSON object"),
        (safetensors(b"{"), "the header is not JSON"),
        (safetensors(b"\xff\xfe"), "the header is not JSON"),
        (safetensors(b"[" * 200_000), "the header is not JSON"),
        (safetensors(b'{"a": {}, "a": {}}'), "the header has a key twice"),
        (safetensors({"__metadata__": 3}), "'__metadata__' is not an object"),
        (safetensors({"a": 3}), "tensor 'a' has no valid 'data_offsets'"),
        (
            safetensors({"a": {"data_offsets": [0, 4]}}, bytes(4)),
            "tensor 'a' has no valid 'shape' and 'dtype'",
        ),
        (
            safetensors({"a": entry("F32", [-1], 0, 4)}, bytes(4)),
            "tensor 'a' has no valid 'shape' and 'dtype'",
        ),
        (
            safetensors({"a": entry("F32", [True], 0, 4)}, bytes(4)),
            "tensor 'a' has no valid 'shape' and 'dtype'",
        ),
        (
            safetensors({"a": entry("F32", [2], 0, 4)}, bytes(4)),
            "tensor 'a' of shape [2] in 4 bytes",
        ),
        (
            safetensors({"a": entry("F32", [1 << 40], 0, 1 << 42)}, bytes(4)),
            "bytes 0 to 4,398,046,511,104 are wanted of 4",
        ),
        (
            safetensors({"a": entry("F32", [1], 0, 4), "b": entry("F32", [1], 0, 4)}, bytes(4)),
            "tensor 'b' starts at 0, but the one before ends at 4",
        ),
        (safetensors({"a": entry("F32", [1], 0, 4)}, bytes(6)), "2 bytes belong to no tensor"),
        (
            safetensors({"a": entry("U8", [1] * 65, 0, 1)}, bytes(1)),
            "65 dimensions with 65 strides",
        ),
    ],
)
def test_a_damaged_safetensors_file_is_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    assert refusal(write(tmp_path / "m.safetensors", data)) == reason


def test_a_header_that_is_too_long_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 1 << 30))
        file.truncate((1 << 30) + 8)
    tracemalloc.start()
    reason = refusal(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert reason == "a header of 1,073,741,824 bytes; at most 16,777,216 are read"
    assert peak < 4 << 20


# numpy


@pytest.mark.parametrize(
    "dtype",
    ["<f8", ">f4", "<f2", "i1", ">i8", "<u4", "?", "<c8", ">c16", "<U3", ">U3", "S5", "<M8[s]"],
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_of_every_type_and_order_is_read(tmp_path: Path, dtype: str, order: Any) -> None:
    values = np.arange(24).reshape(2, 3, 4).astype(dtype)
    np.save(tmp_path / "a.npy", np.array(values, order=order))
    tensor = read(tmp_path / "a.npy").tensors["array"]
    assert (array(tensor, np.dtype(dtype).newbyteorder("<").str) == values).all()
    assert tensor.dense


def test_npy_versions_1_to_3_are_read(tmp_path: Path) -> None:
    for version in [(1, 0), (2, 0), (3, 0)]:
        path = tmp_path / f"{version[0]}.npy"
        with path.open("wb") as file:
            np.lib.format.write_array(file, count(3), version=version)
        assert (array(read(path).tensors["array"]) == count(3)).all()


def test_scalars_and_empty_arrays_are_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", scalar=np.float32(2.5), empty=np.zeros((0, 3)))
    tensors = read(tmp_path / "a.npz").tensors
    assert str(tensors["scalar"]) == "float32[]"
    assert array(tensors["scalar"]) == 2.5
    assert str(tensors["empty"]) == "float64[0,3]"
    assert not list(tensors["empty"].chunks(in_memory_order=True))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_is_read_stored_and_packed(tmp_path: Path, save: Any) -> None:
    save(tmp_path / "a.npz", one=count(3, 4), two=count(300_000))
    found = read(tmp_path / "a.npz")
    assert found.kind == "npz"
    assert (array(found.tensors["one"]) == count(3, 4)).all()
    assert (array(found.tensors["two"]) == count(300_000)).all()


def npy(header: str, data: bytes = b"", version: int = 1) -> bytes:
    return (
        b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H", len(header)) + header.encode() + data
    )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x93NUMPY", "it does not start like an .npy file"),
        (npy("{}", b"    ", 4), "version 4 of the .npy format is not known"),
        (npy("x" * 20_000), "a header of 20,000 bytes; at most 10,000 are read"),
        (npy("")[:8] + b"\xff\1" + b"x" * 9, "a header of 511 bytes in a file of 19"),
        (npy("__import__('os').abort()"), "its header describes no plain array of numbers"),
        (npy("(" * 9_000), "its header describes no plain array of numbers"),
        (
            npy("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}", bytes(4)),
            "its header describes no plain array of numbers",
        ),
        (
            npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", b"cos\nabort\n(tR."),
            "it holds pickled Python objects, which are not read",
        ),
        (npy("{'descr': '?!', 'fortran_order': False, 'shape': (1,)}"), "values of type '?!'"),
        (
            npy("{'descr': '<U0', 'fortran_order': False, 'shape': (1,)}"),
            "values of type '<U0' take 0 bytes each",
        ),
        (
            npy("{'descr': '|S999999', 'fortran_order': False, 'shape': (1,)}"),
            "values of type '|S999999' take 999,999 bytes each",
        ),
        (
            npy("{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999, 9999999999)}"),
            "an array of shape [9999999999, 9999999999] in 0 bytes",
        ),
    ],
)
def test_a_damaged_npy_file_is_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    assert refusal(write(tmp_path / "a.npy", data)) == reason


# archives


def archive(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", compression) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return data.getvalue()


def test_a_zip_bomb_is_refused(tmp_path: Path) -> None:
    data = bytearray(archive({"a.npy": bytes(1 << 20)}, zipfile.ZIP_DEFLATED))
    entry_at = data.rfind(b"PK\1\2")
    data[entry_at + 24 : entry_at + 28] = struct.pack("<I", 0xFFFFFFF0)
    path = write(tmp_path / "a.npz", bytes(data))
    assert refusal(path) == f"{len(data):,} bytes would unpack to 4,294,967,280"


def test_a_packed_member_that_is_damaged_is_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", a=count(1000))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    name, extra = struct.unpack("<2H", data[26:30])
    data[30 + name + extra] = 0x07  # a block of a type that does not exist
    assert refusal(write(tmp_path / "a.npz", bytes(data))) == "its packed content is damaged"


def test_a_packed_member_that_ends_early_is_refused(tmp_path: Path) -> None:
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000,)}"
    data = bytearray(archive({"a.npy": npy(header, bytes(40))}, zipfile.ZIP_DEFLATED))
    entry_at = data.rfind(b"PK\1\2")
    data[entry_at + 24 : entry_at + 28] = struct.pack("<I", len(npy(header)) + 4000)
    assert refusal(write(tmp_path / "a.npz", bytes(data))) == "its packed content ends early"


def test_a_directory_that_says_too_much_is_refused_in_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    size = 1 << 30
    with path.open("wb") as file:
        file.write(b"PK\3\4")
        file.truncate(size - 22)
        file.seek(size - 22)
        file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 9, 9, size - 22 - 4, 4, 0))
    tracemalloc.start()
    reason = refusal(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert reason == "the archive's directory takes over 8,388,608 bytes"
    assert peak < 4 << 20


def test_a_truncated_archive_is_refused(tmp_path: Path) -> None:
    data = (GOLDEN / "state_dict.pt").read_bytes()
    assert refusal(write(tmp_path / "a.pt", data[:-30])) == "it is not a valid zip archive"


def test_other_files_are_none(tmp_path: Path) -> None:
    assert read_tensors(write(tmp_path / "a.txt", b"hello")) is None
    assert read_tensors(write(tmp_path / "pytorch_model.bin", b"")) is None
    assert read_tensors(write(tmp_path / "a.zip", archive({"a.txt": b"hello"}))) is None
    assert read_tensors(write(tmp_path / "broken.zip", b"PK\3\4 and no more")) is None


# torch


@pytest.mark.parametrize(
    "name",
    ["state_dict.pt", "state_dict_saved_under_another_name.pt", "state_dict_protocol_4.pt"],
)
def test_a_state_dict_is_read(name: str) -> None:
    found = read(GOLDEN / name)
    assert found.kind == "torch"
    assert {name: str(tensor) for name, tensor in found.tensors.items()} == {
        "0.weight": "float32[3,4]",
        "0.bias": "float32[3]",
        "1.weight": "float32[3]",
        "1.bias": "float32[3]",
        "1.running_mean": "float32[3]",
        "1.running_var": "float32[3]",
        "1.num_batches_tracked": "int64[]",
    }
    assert (array(found.tensors["0.weight"]) == count(3, 4)).all()


def test_a_checkpoint_gives_tensors_and_other_values() -> None:
    found = read(GOLDEN / "checkpoint.pt")
    assert (array(found.tensors["model.0.weight"]) == count(3, 4)).all()
    assert str(found.tensors["optimizer.state.0.exp_avg"]) == "float32[3,4]"
    assert found.values["epoch"] == "3"
    assert found.values["loss"] == "0.5"
    assert found.values["optimizer.param_groups.0.betas.1"] == "0.999"


def test_a_whole_module_is_read_without_its_classes() -> None:
    found = read(GOLDEN / "module.pt")
    weight = found.tensors["_modules.0._parameters.weight"]
    assert (array(weight) == count(3, 4)).all()
    assert found.values["_modules.0"] == "a torch.nn.modules.linear.Linear"


def test_offsets_and_strides_are_honoured() -> None:
    tensors = read(GOLDEN / "layouts.pt").tensors
    whole = count(4, 6)
    wanted = {
        "contiguous": whole,
        "transposed": whole.T,
        "columns": whole[:, 1:5:2],
        "middle": whole.reshape(-1)[5:9],
        "permuted": count(2, 3, 4).transpose(2, 0, 1),
        "parameter": count(2, 2),
        "tied": count(2, 2),
        "frozen": count(3),
        "scalar": np.array(2.5),
        "nested.0": count(2),
        "nested.1.0": count(3),
        "nested.1.1.deep": count(1),
    }
    for name, values in wanted.items():
        assert tensors[name].shape == values.shape, name
        assert (array(tensors[name]) == values).all(), name
    assert tensors["empty"].shape == (0, 3)
    assert tensors["expanded"].shape == (2, 3)
    assert (array(tensors["expanded"]) == count(1, 3)).all()
    assert tensors.keys() == wanted.keys() | {"empty", "expanded"}


def test_every_type_of_torch_is_read() -> None:
    tensors = read(GOLDEN / "dtypes.pt").tensors
    for name, tensor in tensors.items():
        assert str(tensor) == f"{name}[5]"
        if name == "bfloat16":
            wide = array(tensor, "uint16").astype("uint32") << 16
            assert (wide.view("float32") == count(5)).all()
        elif name in EIGHTHS:
            assert array(tensor, "uint8").tolist() == EIGHTHS[name]
        else:
            assert (array(tensor) == count(5).astype(name)).all(), name
    assert len(tensors) == 17


def test_what_is_not_known_stays_opaque_and_its_tensors_are_found() -> None:
    found = read(GOLDEN / "unusual.pt")
    assert list(found.tensors) == [
        "quantised.<args>.0",
        "sparse.<args>.1.0",
        "sparse.<args>.1.1",
        "conjugated.<args>.0",
    ]
    assert found.values["quantised"] == "a torch._utils._rebuild_qtensor"
    assert found.values["conjugated.<args>.6.conj"] == "True"
    assert found.values["<item 8>"] == "'a key that is no text'"
    assert found.values["big"] == "1000000000000000000000000000000"
    assert found.values["text"] == "200 bytes, b3:41f27fa4b0ad"


def test_the_format_of_old_torch_is_refused() -> None:
    reason = refusal(GOLDEN / "state_dict_legacy.pt")
    assert reason == "it has torch's format from before version 1.6"


def torch_file(path: Path, pickle_: bytes, storages: dict[str, bytes] | None = None) -> Path:
    members = {"a/data.pkl": pickle_}
    members |= {f"a/data/{key}": data for key, data in (storages or {}).items()}
    return write(path, archive(members))


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch executed",)


def test_a_hostile_pickle_is_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for protocol in range(6):
        path = torch_file(tmp_path / "a.pt", pickle.dumps({"x": Hostile()}, protocol))
        assert read(path).values == {
            "x": f"a {os.system.__module__}.system",
            "x.<args>.0": "'touch executed'",
        }
    assert os.listdir(tmp_path) == ["a.pt"]


def tensor_pickle(
    offset: int, shape: tuple[int, ...], strides: tuple[int, ...], key: str = "0"
) -> bytes:
    """A tensor of bytes, as torch.save writes one."""
    storage = b"((X\7\0\0\0storagectorch\nByteStorage\n" + _plain(key) + _plain("cpu") + b"K\4tQ"
    arguments = _plain(offset) + _plain(shape) + _plain(strides) + b"\x89}"
    return b"\x80\2ctorch._utils\n_rebuild_tensor_v2\n" + storage + arguments + b"tR."


def _plain(value: object) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


@pytest.mark.parametrize(
    ("pickle_", "reason"),
    [
        (b"", "its pickle is damaged"),
        (b"\x80\2", "its pickle is damaged"),
        (b"\x80\2.", "its pickle is damaged"),
        (b"\x80\2(.", "its pickle is damaged"),
        (b"\x80\2h\7.", "its pickle is damaged"),
        (b"\x80\2)K\1K\1s.", "its pickle is damaged"),
        (b"\x80\2\x82\1.", "its pickle uses EXT1, which torch.save does not"),
        (
            b"\x80\2\x8b" + struct.pack("<i", 4096) + b"\x7f" * 4096 + b".",
            "its pickle holds an integer of over 1024 bits",
        ),
        (b"\x80\2]q\0h\0a.", "more than 500,000 values, or nested more than 100 deep"),
        (
            b"\x80\2" + b"]" * 5000 + b"a" * 4999 + b".",
            "more than 500,000 values, or nested more than 100 deep",
        ),
        (
            b"\x80\2]q\0"
            + b"".join(b"](" + b"h%c" % n * 10 + b"eq%c" % (n + 1) for n in range(9))
            + b".",
            "more than 500,000 values, or nested more than 100 deep",
        ),
        (b"\x80\2" + b"}" * 1_000_002 + b".", "a pickle of over 1,000,000 operations"),
        (b"\x80\2}(K\1K\2X\1\0\0\0001K\3u.", "two values are named '1'"),
        (tensor_pickle(0, (2,), (1,), key="9"), "storage '9' is missing from the archive"),
        (tensor_pickle(-1, (2,), (1,)), "a tensor starts at -1 of 4 bytes"),
        (tensor_pickle(9, (2,), (1,)), "a tensor starts at 9 of 4 bytes"),
        (tensor_pickle(0, (5,), (1,)), "bytes 0 to 5 are wanted of 4"),
        (tensor_pickle(0, (2,), (9,)), "bytes 0 to 10 are wanted of 4"),
        (tensor_pickle(0, (2, 2), (1,)), "2 dimensions with 1 strides"),
        (tensor_pickle(0, (-2,), (1,)), "a shape or a stride is negative"),
        (tensor_pickle(0, (2, 2), (1, 1)), "a tensor of 4 values has room for 3"),
    ],
)
def test_a_damaged_torch_file_is_refused(tmp_path: Path, pickle_: bytes, reason: str) -> None:
    assert refusal(torch_file(tmp_path / "a.pt", pickle_, {"0": b"\1\2\3\4"})) == reason


def test_a_few_long_names_can_not_fill_the_memory(tmp_path: Path) -> None:
    long = b"X" + struct.pack("<I", 1 << 20) + b"k" * (1 << 20)
    path = torch_file(
        tmp_path / "a.pt",
        b"\x80\2"
        + b"}"
        + long
        + b"q\0"
        + b"".join(b"}h\0" for _ in range(90))
        + b"K\1"
        + b"s" * 91
        + b".",
    )
    tracemalloc.start()
    reason = refusal(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert reason == "a name of over 10,000 characters"
    assert peak < 20 << 20


def test_many_names_can_not_fill_the_memory(tmp_path: Path) -> None:
    long = b"X" + struct.pack("<I", 9_000) + b"k" * 9_000
    inner = b"(" + b"K\1" * 20 + b"lq\1"
    many = b"".join(b"X\4\0\0\0%04dh\1" % number for number in range(9_000))
    pickle_ = b"\x80\2}" + long + inner + b"0}(" + many + b"us."
    reason = refusal(torch_file(tmp_path / "a.pt", pickle_))
    assert reason == "names and texts of over 67,108,864 characters"


def test_tensors_that_share_one_storage_too_often_are_refused(tmp_path: Path) -> None:
    one = tensor_pickle(0, (1_000_000,), (1,))[2:-1]
    pickle_ = b"\x80\2(" + one * 100 + b"t."
    reason = refusal(torch_file(tmp_path / "a.pt", pickle_, {"0": bytes(1_000_000)}))
    assert reason == "its tensors have over 16 times its size"


# anything at all


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), name=st.sampled_from(sorted(p.name for p in GOLDEN.glob("*.*t*"))))
def test_a_mutated_file_is_read_or_refused(tmp_path: Path, data: st.DataObject, name: str) -> None:
    content = bytearray((GOLDEN / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    read_or_refuse(write(tmp_path / name, bytes(content)))


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    pickle_=st.one_of(
        st.binary(max_size=200),
        st.lists(
            st.sampled_from(
                [bytes([op]) for op in b"()]}laetsu.0122RbQqhKM\x80\x81\x85\x86\x87\x94\x8f\x90"]
                + [b"ctorch\nSize\n", b"X\1\0\0\0a", b"\x8c\1a"]
            )
        ).map(b"".join),
    )
)
def test_any_pickle_is_read_or_refused(tmp_path: Path, pickle_: bytes) -> None:
    read_or_refuse(torch_file(tmp_path / "a.pt", pickle_, {"0": b"\1\2\3\4"}))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    start=st.sampled_from(
        [b"", b"\x93NUMPY\1\0v\0{'descr': '<f4', ", b"PK\3\4", b"\x0a" + bytes(7)]
    ),
    rest=st.binary(max_size=300),
    suffix=st.sampled_from([".safetensors", ".npy", ".npz", ".pt", ".bin"]),
)
def test_any_bytes_are_read_or_refused(
    tmp_path: Path, start: bytes, rest: bytes, suffix: str
) -> None:
    read_or_refuse(write(tmp_path / f"a{suffix}", start + rest))


def read_or_refuse(path: Path) -> None:
    try:
        found = read_tensors(path)
        for tensor in found.tensors.values() if found else ():
            for _ in tensor.chunks(in_memory_order=False):
                pass
    except UnreadableTensorsError as error:
        assert error.summary  # noqa: PT017


# parameters


def test_parameters_of_a_model_are_counted(tmp_path: Path) -> None:
    assert count_parameters(tmp_path) is None
    (tmp_path / "deep").mkdir()
    shutil.copy(GOLDEN / "state_dict.safetensors", tmp_path / "deep" / "model.safetensors")
    assert count_parameters(tmp_path) == 27


@pytest.mark.parametrize("name", ["state_dict.pt", "module.pt", "checkpoint.pt"])
def test_an_optimiser_in_a_checkpoint_is_not_counted(tmp_path: Path, name: str) -> None:
    shutil.copy(GOLDEN / name, tmp_path)
    assert count_parameters(tmp_path) == 27


def test_a_file_with_an_optimiser_alone_is_no_model(tmp_path: Path) -> None:
    shutil.copy(GOLDEN / "optimizer.pt", tmp_path)
    assert count_parameters(tmp_path) is None


def test_tied_tensors_are_counted_once(tmp_path: Path) -> None:
    one = tensor_pickle(0, (4,), (1,)).replace(b"ByteStorage", b"HalfStorage")[2:-1]
    pickle_ = b"\x80\2(" + one + one + b"t."
    torch_file(tmp_path / "a.pt", pickle_, {"0": bytes(8)})
    assert count_parameters(tmp_path) == 4


def test_the_largest_of_several_models_counts_and_shards_are_one(tmp_path: Path) -> None:
    for name, size in [("small", 5), ("m-00001-of-00002", 3), ("m-00002-of-00002", 4)]:
        data = safetensors({"a": entry("F16", [size], 0, 2 * size)}, bytes(2 * size))
        write(tmp_path / f"{name}.safetensors", data)
    write(tmp_path / "broken.pt", b"PK\3\4")
    assert count_parameters(tmp_path) == 7


def test_integers_and_linked_files_are_not_counted(tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors", safetensors({"a": entry("I8", [3], 0, 3)}, bytes(3)))
    (tmp_path / "b.pt").symlink_to(GOLDEN / "state_dict.pt")
    assert count_parameters(tmp_path) is None
