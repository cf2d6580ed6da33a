"""What the text of a training script says about itself; nothing is run.

For `init`, which guesses: what is overlooked here costs a line that the author adds by hand.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from modelbuild.draft.constants import DEEPEST, MAKING_PATHS, Constants, called
from modelbuild.errors import ModelbuildError

_SAVING = frozenset(
    {
        *("dump", "save", "savez", "savez_compressed", "savetxt", "savefig", "imwrite", "imsave"),
        *("save_file", "save_model", "save_pretrained", "save_weights", "save_checkpoint"),
        *("to_csv", "to_parquet", "to_json", "to_pickle", "to_feather", "to_excel"),
        *("write_text", "write_bytes", "makedirs", "mkdir", "FileHandler", "SummaryWriter"),
    }
)
_ON_PATHS = frozenset({"write_text", "write_bytes", "mkdir", "open"})
"""Methods of a path, which stands before them."""
_ADDING = frozenset({"add_argument", "option", "argument"})
"""How argparse and click declare an option."""
_FLAGS = ("store_true", "store_false", "store_const", "count", "help", "version")


@dataclass(frozen=True, kw_only=True, slots=True)
class Option:
    """One option or positional argument of the script's command line."""

    flag: str | None
    """`--batch-size`; None for a positional argument."""
    name: str
    """`batch-size`"""
    flags: tuple[str, ...]
    """All spellings; of a positional argument its name."""
    default: object
    required: bool
    takes_one: bool
    """Whether exactly one value follows it."""
    line: int
    saved_to: bool = False
    """Whether the script hands it to a function that writes files."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Literal:
    """A string in the program."""

    text: str
    file: str
    line: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Module:
    """An import of something that is not the script's own."""

    name: str
    optional: bool
    """It stands in a `try`, and the program does without it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Script:
    path: str
    description: str
    """First line of the docstring."""
    options: tuple[Option, ...]
    literals: tuple[Literal, ...]
    """Strings that are not for people to read."""
    writes: tuple[Literal, ...]
    """Paths, spelled in the program, that it hands to functions that write files."""
    modules: tuple[Module, ...]
    reads_argv: bool


def read_script(path: str, files: Mapping[str, bytes]) -> Script:
    """`files` are the script's and those of the modules that it reaches."""
    programs = [_Program(name, parse(name, files[name])) for name in sorted(files)]
    own = next(program for program in programs if program.path == path)
    options = own.options() or [option for each in programs for option in each.options()]
    return Script(
        path=path,
        description=(ast.get_docstring(own.tree) or "").partition("\n")[0].strip(),
        options=tuple(_mark_saved(options, programs)),
        literals=tuple(literal for each in programs for literal in each.literals()),
        writes=tuple(literal for each in programs for literal in each.written()),
        modules=tuple(module for each in programs for module in each.modules()),
        reads_argv=own.mentions("sys", "argv"),
    )


def parse(path: str, content: bytes) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(content)
    except (SyntaxError, ValueError, RecursionError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) else ""
        raise ModelbuildError(
            f"{path}{line}: not a Python program that this Python understands",
            facts=[("found", error.msg if isinstance(error, SyntaxError) else str(error))],
        ) from None


def is_program(tree: ast.Module) -> bool:
    """Whether it is meant to be run: it asks for `__main__`, or reads a command line."""
    return any(
        (isinstance(node, ast.Name) and node.id == "__name__")
        or (isinstance(node, ast.Import) and any(a.name == "argparse" for a in node.names))
        for node in ast.walk(tree)
    )


def _mark_saved(options: list[Option], programs: list[_Program]) -> Iterator[Option]:
    from dataclasses import replace

    saved = {name for program in programs for name in program.saved_names()}
    for option in options:
        yield replace(option, saved_to=option.name.replace("-", "_") in saved)


class _Program:
    """One file, and where the values in it come from."""

    def __init__(self, path: str, tree: ast.Module) -> None:
        self.path = path
        self.tree = tree
        self.nodes = list(ast.walk(tree))
        self.constants = Constants(path, self.nodes)

    def mentions(self, module: str, name: str) -> bool:
        return any(
            isinstance(node, ast.Attribute)
            and node.attr == name
            and isinstance(node.value, ast.Name)
            and node.value.id == module
            for node in self.nodes
        )

    def options(self) -> list[Option]:
        calls = (node for node in self.nodes if isinstance(node, ast.Call))
        found = [self._option(call) for call in calls if called(call) in _ADDING]
        return sorted((option for option in found if option), key=lambda option: option.line)

    def _option(self, call: ast.Call) -> Option | None:
        names = [arg.value for arg in call.args if isinstance(arg, ast.Constant)]
        flags = [name for name in names if isinstance(name, str) and "/" not in name]
        if not flags:
            return None
        longest = next((flag for flag in flags if flag.startswith("--")), flags[0])
        keywords = {keyword.arg: keyword.value for keyword in call.keywords}
        action = self.constants.value(keywords.get("action"))
        count = self.constants.value(keywords.get("nargs"))
        several = bool({"is_flag", "multiple"} & keywords.keys()) or count not in (None, 1, "?")
        unusual = action in _FLAGS or isinstance(keywords.get("action"), ast.Attribute)
        is_option = longest.startswith("-")
        default = self.constants.value(keywords.get("default"))
        needed = "required" in keywords and self.constants.value(keywords["required"]) is True
        return Option(
            flag=longest if is_option else None,
            name=longest.lstrip("-"),
            flags=tuple(flags),
            default=default,
            required=needed or not (is_option or count in ("?", "*") or "default" in keywords),
            takes_one=not (several or unusual),
            line=call.lineno,
        )

    def literals(self) -> Iterator[Literal]:
        """Strings, and paths that are joined of strings."""
        for_people = _for_people(self.nodes)
        for node in self.nodes:
            if isinstance(node, ast.Constant | ast.BinOp | ast.Call) and node not in for_people:
                text = self.constants.value(node)
                if isinstance(text, str):
                    yield Literal(text=text, file=self.path, line=node.lineno)

    def written(self) -> Iterator[Literal]:
        for path, origin in self._saved():
            if isinstance(origin, ast.Constant):
                whole = self.constants.value(path)
                text = whole if isinstance(whole, str) else f"{origin.value!s}..."
                yield Literal(text=text, file=self.path, line=path.lineno)

    def saved_names(self) -> Iterator[str]:
        for _, origin in self._saved():
            if isinstance(origin, ast.Attribute):
                yield origin.attr
            elif isinstance(origin, ast.Name):
                yield origin.id

    def _saved(self) -> Iterator[tuple[ast.expr, ast.expr]]:
        """The paths that are written to, each with what it begins with."""
        for call in self.nodes:
            if isinstance(call, ast.Call) and self._writes(call):
                paths = [*call.args, *(keyword.value for keyword in call.keywords)]
                if called(call) in _ON_PATHS and isinstance(call.func, ast.Attribute):
                    paths = [call.func.value]
                for path in paths:
                    origin = self._origin(path)
                    if not isinstance(origin, ast.Constant) or _is_path(origin.value, call):
                        yield path, origin

    def _writes(self, call: ast.Call) -> bool:
        name = called(call)
        if name != "open":
            return name in _SAVING
        modes = [*call.args, *(word.value for word in call.keywords if word.arg == "mode")]
        texts = (mode.value for mode in modes if isinstance(mode, ast.Constant))
        return any(isinstance(mode, str) and mode.strip("tb+") in ("w", "a", "x") for mode in texts)

    def _origin(self, node: ast.expr, depth: int = 0) -> ast.expr:
        """What a path begins with: `out` of `os.path.join(out, "model.pt")`."""
        if depth > DEEPEST:
            return node
        match node:
            case ast.Name(id=name) if name in self.constants.assigned:
                return self._origin(self.constants.assigned[name], depth + 1)
            case ast.Call(args=[first, *_]) if called(node) in MAKING_PATHS:
                return self._origin(first, depth + 1)
            case ast.Call(args=[first, *_]) if called(node) == "open":
                return self._origin(first, depth + 1)
            case ast.BinOp(left=left, op=ast.Div() | ast.Add() | ast.Mod()):
                return self._origin(left, depth + 1)
            case ast.JoinedStr(values=[ast.FormattedValue(value=value), *_]):
                return self._origin(value, depth + 1)
            case ast.JoinedStr(values=[first, *_]):
                return first
        return node

    def modules(self) -> Iterator[Module]:
        skipped = {id(n) for block in self.nodes for n in _only_for_types(block)}
        optional = {id(n) for block in self.nodes for n in _attempted(block)}
        for node in self.nodes:
            if isinstance(node, ast.Import) and id(node) not in skipped:
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level and id(node) not in skipped:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            yield from (Module(name=name, optional=id(node) in optional) for name in names)


def _is_path(value: object, call: ast.Call) -> bool:
    """Whether a string that is given to a function that writes is where it writes."""
    if not isinstance(value, str) or not value or "\n" in value or " " in value.strip():
        return False
    stem, dot, suffix = value.rpartition(".")
    made = called(call) in ("makedirs", "mkdir", "save_pretrained", "SummaryWriter")
    return made or "/" in value or bool(stem and dot and suffix.isalnum())


def _for_people(nodes: list[ast.AST]) -> set[ast.expr]:
    """Docstrings, and the help of a command line."""
    found: set[ast.expr] = set()
    for node in nodes:
        match node:
            case ast.Expr(value=value):
                found.add(value)
            case ast.keyword(arg="help" | "description" | "epilog", value=value):
                found.add(value)
    return found


def _only_for_types(block: ast.AST) -> Iterator[ast.AST]:
    match block:
        case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
            for statement in block.body:
                yield from ast.walk(statement)


def _attempted(block: ast.AST) -> Iterator[ast.AST]:
    if isinstance(block, ast.Try) and any(_misses_module(each) for each in block.handlers):
        for statement in (*block.body, *block.handlers):
            yield from ast.walk(statement)


def _misses_module(handler: ast.ExceptHandler) -> bool:
    names = (
        {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)}
        if (handler.type)
        else {"Exception"}
    )
    return bool(names & {"ImportError", "ModuleNotFoundError", "Exception"})
