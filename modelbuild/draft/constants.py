"""What expressions of a program stand for, where that follows from its text."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath

MAKING_PATHS = ("Path", "PurePath", "str", "join")
DEEPEST = 8
_SAME = frozenset({"abspath", "absolute", "expanduser", "realpath", "resolve"})
"""What gives the same path in another form."""


class Constants:
    """Of one file."""

    def __init__(self, path: str, nodes: Sequence[ast.AST]) -> None:
        self.path = path
        self.assigned = dict(_assignments(nodes))
        self.fields = {
            f"{node.name}.{name}": value
            for node in nodes
            if isinstance(node, ast.ClassDef)
            for name, value in _assignments(node.body)
        }
        """Of classes, such as those that hold a configuration: by `Class.name`."""

    def value(self, node: ast.expr | None, depth: int = 0) -> object:
        """A constant, also by the name of one, or a path made of such; None for all else."""
        if node is None or depth > DEEPEST:
            return None
        match node:
            case ast.Name(id="__file__"):
                return self.path
            case ast.Name(id=name) if name in self.assigned:
                return self.value(self.assigned[name], depth + 1)
            case ast.Attribute():
                return self._attribute(node, depth + 1)
            case ast.Call():
                return self._call(node, depth + 1)
            case ast.BinOp(left=left, op=ast.Div(), right=right):
                return _joined([self.value(left, depth + 1), self.value(right, depth + 1)])
        try:
            value: object = ast.literal_eval(node)
        except (ValueError, TypeError, MemoryError, RecursionError):
            return None
        return value

    def _attribute(self, node: ast.Attribute, depth: int) -> object:
        """`path.parent`; `Config.lr`, or `config.lr` where `config = Config()`."""
        if isinstance(node.value, ast.Name):
            made = self.assigned.get(node.value.id)
            owner = called(made) if isinstance(made, ast.Call) else node.value.id
            if f"{owner}.{node.attr}" in self.fields:
                return self.value(self.fields[f"{owner}.{node.attr}"], depth)
        return _parent(self.value(node.value, depth)) if node.attr == "parent" else None

    def _call(self, node: ast.Call, depth: int) -> object:
        """Of functions of paths."""
        name = called(node)
        match node:
            case ast.Call(func=ast.Attribute(value=path), args=[]) if name in _SAME:
                return self.value(path, depth)
            case ast.Call(args=[path]) if name in _SAME:
                return self.value(path, depth)
            case ast.Call(args=[path]) if name == "dirname":
                return _parent(self.value(path, depth))
            case ast.Call(args=[path, *_]) if name == "open":
                return self.value(path, depth)
        if name in MAKING_PATHS:
            return _joined([self.value(arg, depth) for arg in node.args])
        return None


def called(call: ast.Call) -> str:
    match call.func:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
    return ""


def _assignments(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, ast.expr]]:
    for node in nodes:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                yield name, value
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                yield name, value


def _parent(path: object) -> str | None:
    return str(PurePosixPath(path).parent) if isinstance(path, str) else None


def _joined(parts: list[object]) -> str | None:
    texts = [part for part in parts if isinstance(part, str)]
    whole = bool(texts) and len(texts) == len(parts)
    return "/".join(texts).removeprefix("./") if whole else None
