"""Reads a pickle as data: no name in it is imported, nothing is called.

What a pickle would call or make becomes a record of the wish (`Made`), what it would look up a
`Name`. `pickletools.genops` splits the bytes into operations, and a stack machine of our own,
which knows those that torch.save emits (protocols 2 to 5), follows them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from modelbuild.store.tensor_files.tensor import UnreadableTensorsError

MAX_PICKLE = 16 << 20
MAX_OPERATIONS = 1_000_000
MAX_INTEGER = 1 << 1024


@dataclass(frozen=True, slots=True)
class Name:
    """Something that the pickle would import."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(slots=True, eq=False)
class Pairs:
    """A dictionary, in its order. Keys are not hashed: they may be anything."""

    items: list[tuple[Value, Value]] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Made:
    """Something that the pickle would make by calling `by` with `args`, and what it adds then."""

    by: Value
    args: Value
    state: list[Value] = field(default_factory=list)
    members: list[Value] = field(default_factory=list)
    items: Pairs = field(default_factory=Pairs)


@dataclass(slots=True, eq=False)
class Stored:
    """Something that lies outside of the pickle, by what the pickle says of it."""

    key: Value


Value: TypeAlias = (
    "bool | int | float | str | bytes | list[Value] | tuple[Value, ...]"
    " | Name | Pairs | Made | Stored | None"
)


class _Mark:
    pass


_MARK = _Mark()
_CONSTANTS: Mapping[str, Value] = {
    "NONE": None,
    "NEWTRUE": True,
    "NEWFALSE": False,
}
_NUMBERS = "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT"
_TEXTS = "STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8"
_BYTES = "BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8"
_ATOMS = frozenset(f"{_NUMBERS} {_TEXTS} {_BYTES}".split())


def read_pickle(data: bytes) -> Value:
    """What the pickle describes. Raises UnreadableTensorsError."""
    import pickletools

    if len(data) > MAX_PICKLE:
        raise UnreadableTensorsError(
            f"a pickle of {len(data):,} bytes; at most {MAX_PICKLE:,} are read"
        )
    machine = _Machine()
    try:
        for number, (operation, argument, _) in enumerate(pickletools.genops(data)):
            if number > MAX_OPERATIONS:
                raise UnreadableTensorsError(f"a pickle of over {MAX_OPERATIONS:,} operations")
            if operation.name == "STOP":
                return machine.pop()
            machine.do(operation.name, argument)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        # A stack that is empty, a memo that isn't there, a key on something without keys.
        raise UnreadableTensorsError("its pickle is damaged") from error
    raise UnreadableTensorsError("its pickle has no end")


class _Machine:
    """The stack and the memo of a pickle."""

    def __init__(self) -> None:
        self.stack: list[Value | _Mark] = []
        self.memo: dict[int, Value] = {}

    def do(self, name: str, argument: object) -> None:
        if name in _ATOMS:
            self.stack.append(_atom(argument))
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _OPERATIONS:
            _OPERATIONS[name](self)
        elif name in _WITH_ARGUMENT:
            _WITH_ARGUMENT[name](self, argument)
        elif name not in ("PROTO", "FRAME"):
            raise UnreadableTensorsError(f"its pickle uses {name}, which torch.save does not")

    def push(self, value: Value) -> None:
        self.stack.append(value)

    def pop(self) -> Value:
        value = self.stack.pop()
        if isinstance(value, _Mark):
            raise ValueError("a mark in place of a value")
        return value

    def top(self) -> Value:
        value = self.stack[-1]
        if isinstance(value, _Mark):
            raise ValueError("a mark in place of a value")
        return value

    def since_mark(self) -> list[Value]:
        values: list[Value] = []
        while not isinstance(value := self.stack.pop(), _Mark):
            values.append(value)
        return values[::-1]


def _atom(argument: object) -> Value:
    if isinstance(argument, bytearray):
        return bytes(argument)
    if isinstance(argument, int) and abs(argument) >= MAX_INTEGER:
        raise UnreadableTensorsError("its pickle holds an integer of over 1024 bits")
    assert isinstance(argument, bool | int | float | str | bytes)
    return argument


def _tuple(size: int | None) -> Callable[[_Machine], None]:
    def push(machine: _Machine) -> None:
        if size is None:
            machine.push(tuple(machine.since_mark()))
        else:
            machine.push(tuple([machine.pop() for _ in range(size)][::-1]))

    return push


def _list(machine: _Machine) -> None:
    machine.push(machine.since_mark())


def _dict(machine: _Machine) -> None:
    machine.push(Pairs(list(_in_pairs(machine.since_mark()))))


def _frozenset(machine: _Machine) -> None:
    machine.push(Made(Name("builtins", "frozenset"), (), members=machine.since_mark()))


def _append(machine: _Machine) -> None:
    _extend(machine, [machine.pop()])


def _appends(machine: _Machine) -> None:
    _extend(machine, machine.since_mark())


def _extend(machine: _Machine, values: list[Value]) -> None:
    target = machine.top()
    if isinstance(target, list):
        target.extend(values)
    elif isinstance(target, Made):
        target.members.extend(values)
    else:
        raise ValueError("members of something that has none")


def _setitem(machine: _Machine) -> None:
    value, key = machine.pop(), machine.pop()
    _update(machine, [key, value])


def _setitems(machine: _Machine) -> None:
    _update(machine, machine.since_mark())


def _update(machine: _Machine, flat: list[Value]) -> None:
    target = machine.top()
    pairs = target.items if isinstance(target, Made) else target
    if not isinstance(pairs, Pairs):
        raise ValueError("keys of something that has none")
    pairs.items.extend(_in_pairs(flat))


def _in_pairs(flat: list[Value]) -> Iterator[tuple[Value, Value]]:
    return zip(flat[::2], flat[1::2], strict=True)


def _global(machine: _Machine, argument: object) -> None:
    module, _, name = str(argument).partition(" ")
    machine.push(Name(module, name))


def _stack_global(machine: _Machine) -> None:
    name, module = machine.pop(), machine.pop()
    if not (isinstance(name, str) and isinstance(module, str)):
        raise ValueError("a name that is no text")
    machine.push(Name(module, name))


def _reduce(machine: _Machine) -> None:
    args, by = machine.pop(), machine.pop()
    machine.push(Made(by, args))


def _newobj_ex(machine: _Machine) -> None:
    keywords, args, by = machine.pop(), machine.pop(), machine.pop()
    machine.push(Made(by, (args, keywords)))


def _inst(machine: _Machine, argument: object) -> None:
    args = tuple(machine.since_mark())
    _global(machine, argument)
    machine.push(Made(machine.pop(), args))


def _obj(machine: _Machine) -> None:
    by, *args = machine.since_mark()
    machine.push(Made(by, tuple(args)))


def _build(machine: _Machine) -> None:
    state, target = machine.pop(), machine.top()
    if not isinstance(target, Made):
        raise ValueError("a state of something that has none")
    target.state.append(state)


def _persid(machine: _Machine, argument: object) -> None:
    machine.push(Stored(str(argument)))


def _binpersid(machine: _Machine) -> None:
    machine.push(Stored(machine.pop()))


def _put(machine: _Machine, argument: object) -> None:
    assert isinstance(argument, int)
    machine.memo[argument] = machine.top()


def _get(machine: _Machine, argument: object) -> None:
    assert isinstance(argument, int)
    machine.push(machine.memo[argument])


def _memoize(machine: _Machine) -> None:
    machine.memo[len(machine.memo)] = machine.top()


def _pop(machine: _Machine) -> None:
    machine.stack.pop()


def _pop_mark(machine: _Machine) -> None:
    machine.since_mark()


_OPERATIONS: Mapping[str, Callable[[_Machine], None]] = {
    "MARK": lambda machine: machine.stack.append(_MARK),
    "POP": _pop,
    "POP_MARK": _pop_mark,
    "DUP": lambda machine: machine.push(machine.top()),
    "EMPTY_TUPLE": _tuple(0),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "TUPLE": _tuple(None),
    "EMPTY_LIST": lambda machine: machine.push([]),
    "LIST": _list,
    "APPEND": _append,
    "APPENDS": _appends,
    "EMPTY_DICT": lambda machine: machine.push(Pairs()),
    "DICT": _dict,
    "SETITEM": _setitem,
    "SETITEMS": _setitems,
    "EMPTY_SET": lambda machine: machine.push(Made(Name("builtins", "set"), ())),
    "ADDITEMS": _appends,
    "FROZENSET": _frozenset,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _reduce,
    "NEWOBJ": _reduce,
    "NEWOBJ_EX": _newobj_ex,
    "OBJ": _obj,
    "BUILD": _build,
    "BINPERSID": _binpersid,
    "MEMOIZE": _memoize,
}
_WITH_ARGUMENT: Mapping[str, Callable[[_Machine, object], None]] = {
    "GLOBAL": _global,
    "INST": _inst,
    "PERSID": _persid,
    "PUT": _put,
    "BINPUT": _put,
    "LONG_BINPUT": _put,
    "GET": _get,
    "BINGET": _get,
    "LONG_BINGET": _get,
}
