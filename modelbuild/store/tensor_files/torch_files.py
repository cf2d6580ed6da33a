"""Reads the tensors of an archive that torch.save made, without unpickling it.

The archive holds one folder, named after the file as it was saved: `data.pkl` with the objects,
`data/KEY` with the bytes of each storage, `byteorder`. See torch/serialization.py and
torch/_utils.py. TorchScript archives are built alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from modelbuild.spec.digest import Digest
from modelbuild.store.tensor_files.pickled import (
    MAX_PICKLE,
    Made,
    Name,
    Pairs,
    Stored,
    Value,
    read_pickle,
)
from modelbuild.store.tensor_files.tensor import (
    DTYPES,
    DType,
    Region,
    Tensor,
    TensorFile,
    UnreadableTensorsError,
    raw_dtype,
    tensor_at,
)

LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How files start that torch made before version 1.6."""
MAX_VALUES = 500_000
MAX_DEPTH = 100
MAX_NAME = 10_000
MAX_CHARACTERS = 64 << 20
MAX_SHARING = 16
"""How many times the size of the archive all tensors may have, since they may share storages."""
_LONG_TEXT = 120

_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexDoubleStorage": "complex128",
    "ComplexFloatStorage": "complex64",
    "QInt8Storage": "int8",
    "QUInt8Storage": "uint8",
    "QInt32Storage": "int32",
}
_UTILS = ("torch._utils", "torch._tensor")
_DICTIONARIES = (Name("collections", "OrderedDict"), Name("collections", "defaultdict"))


def read_torch(members: Mapping[str, Region], root: str) -> TensorFile:
    """`root` is the archive's folder. Raises UnreadableTensorsError."""
    pickle = members[f"{root}/data.pkl"]
    if pickle.length > MAX_PICKLE:
        raise UnreadableTensorsError(
            f"a pickle of {pickle.length:,} bytes; at most {MAX_PICKLE:,} are read"
        )
    order = members.get(f"{root}/byteorder")
    archive = _Archive(
        storages={
            name.removeprefix(f"{root}/data/"): region
            for name, region in members.items()
            if name.startswith(f"{root}/data/")
        },
        big_endian=order is not None and order.length == 3 and order.read() == b"big",
        left=MAX_SHARING * sum(region.length for region in members.values()),
    )
    archive.add("", read_pickle(pickle.read()), 0)
    return TensorFile(kind="torch", tensors=archive.tensors, values=archive.values)


@dataclass(kw_only=True, slots=True)
class _Archive:
    """Finds the tensors in what the pickle describes, and gives everything else as text."""

    storages: Mapping[str, Region]
    big_endian: bool
    left: int
    """Bytes that further tensors may have."""
    tensors: dict[str, Tensor] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    visited: int = 0
    characters: int = 0

    def add(self, name: str, value: Value, depth: int) -> None:
        self.visited += 1
        if self.visited > MAX_VALUES or depth > MAX_DEPTH:
            raise UnreadableTensorsError(
                f"more than {MAX_VALUES:,} values, or nested more than {MAX_DEPTH} deep"
            )
        if len(name) > MAX_NAME:
            raise UnreadableTensorsError(f"a name of over {MAX_NAME:,} characters")
        tensor = self._tensor(value)
        if tensor is not None:
            self._add_tensor(name, tensor)
            return
        children = list(_children(value))
        if not children or isinstance(value, Made | Stored):
            self._add_text(name, _text(value))
        for key, child in children:
            self.add(f"{name}.{key}" if name else key, child, depth + 1)

    def _name(self, name: str, length: int) -> None:
        """Names and texts take room too: a few long ones can be meant thousands of times."""
        self.characters += len(name) + length
        if self.characters > MAX_CHARACTERS:
            raise UnreadableTensorsError(f"names and texts of over {MAX_CHARACTERS:,} characters")
        if name in self.tensors or name in self.values:
            raise UnreadableTensorsError(f"two values are named {name!r}")

    def _add_tensor(self, name: str, tensor: Tensor) -> None:
        self.left -= tensor.stored * tensor.dtype.itemsize
        if self.left < 0:
            raise UnreadableTensorsError(f"its tensors have over {MAX_SHARING} times its size")
        self._name(name, 0)
        self.tensors[name] = tensor

    def _add_text(self, name: str, text: str) -> None:
        self._name(name, len(text))
        self.values[name] = text

    def _tensor(self, value: Value) -> Tensor | None:
        """The tensor that `value` describes in a way that is known; else None."""
        if isinstance(value, Stored):
            storage = self._storage(value)
            if storage is None:
                return None
            region, dtype = storage
            return tensor_at(
                region, dtype, (region.length // dtype.itemsize,), None, self.big_endian
            )
        if not isinstance(value, Made) or value.state or value.members or value.items.items:
            return None
        return self._rebuilt(value.by, value.args)

    def _rebuilt(self, by: Value, args: Value) -> Tensor | None:
        if not isinstance(by, Name) or by.module not in _UTILS or not isinstance(args, tuple):
            return None
        match by.name, args:
            case "_rebuild_parameter", (Made(by=Name(name=inner)) as data, bool(), hooks) if (
                inner != "_rebuild_parameter" and _empty(hooks)
            ):
                return self._tensor(data)
            case "_rebuild_tensor_v2", (storage, offset, shape, strides, _, hooks, *rest):
                if _empty(hooks) and not any(map(_marked, rest)):
                    return self._view(storage, None, offset, shape, strides)
            case "_rebuild_tensor_v3", (storage, offset, shape, strides, _, hooks, dtype, *rest):
                if _empty(hooks) and not any(map(_marked, rest)):
                    return self._view(storage, dtype, offset, shape, strides)
            case "_rebuild_tensor", (storage, offset, shape, strides):
                return self._view(storage, None, offset, shape, strides)
        return None

    def _view(
        self, storage: Value, dtype_name: Value, offset: Value, shape: Value, strides: Value
    ) -> Tensor | None:
        found = self._storage(storage)
        sizes, steps = _integers(shape), _integers(strides)
        if found is None or sizes is None or steps is None or type(offset) is not int:
            return None
        region, dtype = found
        if dtype_name is not None:
            dtype = _named(dtype_name, dtype)
        start = offset * dtype.itemsize
        if not 0 <= start <= region.length:
            raise UnreadableTensorsError(f"a tensor starts at {start:,} of {region.length:,} bytes")
        rest = region.part(start, region.length - start)
        return tensor_at(rest, dtype, sizes, steps, self.big_endian)

    def _storage(self, value: Value) -> tuple[Region, DType] | None:
        """The bytes of a storage and the type that its class stands for."""
        match value:
            case Stored(("storage", Name() as type_, str() as key, str(), int(), *_)):
                if key not in self.storages:
                    raise UnreadableTensorsError(f"storage {key!r} is missing from the archive")
                name = _STORAGES.get(type_.name)
                dtype = DTYPES[name] if name else raw_dtype(type_.name, 1)
                return self.storages[key], dtype
        return None


def _named(value: Value, otherwise: DType) -> DType:
    """The type of a tensor whose storage has none."""
    if not isinstance(value, Name) or value.module != "torch":
        raise UnreadableTensorsError("a tensor has no known type")
    return DTYPES.get(value.name, otherwise)


def _empty(value: Value) -> bool:
    """Whether it is an empty dictionary: a tensor's backward hooks, or what was added later."""
    match value:
        case None | Pairs(items=[]):
            return True
        case Made(by=Name() as by, args=(), state=[], items=Pairs(items=[])):
            return by in _DICTIONARIES
    return False


def _marked(value: Value) -> bool:
    """Whether a tensor's metadata says more than its bytes: conjugated, or negated."""
    return not _empty(value)


def _integers(value: Value) -> tuple[int, ...] | None:
    if isinstance(value, Made) and value.by == Name("torch", "Size"):
        value = value.args[0] if isinstance(value.args, tuple) and value.args else None
    if not isinstance(value, tuple | list):
        return None
    integers = tuple(item for item in value if type(item) is int)
    return integers if len(integers) == len(value) else None


def _children(value: Value) -> Iterator[tuple[str, Value]]:
    if isinstance(value, list | tuple):
        yield from _numbered(value)
    elif isinstance(value, Pairs):
        yield from _items(value)
    elif isinstance(value, Made):
        yield from _made(value)


def _made(value: Made) -> Iterator[tuple[str, Value]]:
    """Items and attributes under their names; what else it was made of under `<...>`."""
    if value.args != ():
        yield "<args>", value.args
    if not isinstance(value.by, Name):
        yield "<by>", value.by
    for number, state in enumerate(value.state):
        if isinstance(state, Pairs):
            yield from _items(state)
        else:
            yield f"<state {number}>", state
    if value.members:
        yield "<members>", value.members
    yield from _children(value.items)


def _numbered(values: Sequence[Value]) -> Iterator[tuple[str, Value]]:
    return ((str(number), value) for number, value in enumerate(values))


def _items(pairs: Pairs) -> Iterator[tuple[str, Value]]:
    """Items under their keys; where a key is no plain value, key and item under their number."""
    for number, (key, item) in enumerate(pairs.items):
        if isinstance(key, str):
            yield key, item
        elif isinstance(key, int | float | bytes | None):
            yield _text(key), item
        else:
            yield f"<key {number}>", key
            yield f"<item {number}>", item


def _text(value: Value) -> str:
    """One line that differs where the values differ, except for what `_children` gives."""
    if isinstance(value, Name):
        return str(value)
    if isinstance(value, Made):
        return f"a {value.by}" if isinstance(value.by, Name) else "an object"
    if isinstance(value, Stored | Pairs | list | tuple):
        return {Stored: "outside", Pairs: "{}", list: "[]", tuple: "()"}[type(value)]
    data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
    if isinstance(data, bytes) and len(data) > _LONG_TEXT:
        return f"{len(data):,} bytes, {Digest.of(data).short}"
    return repr(value)
