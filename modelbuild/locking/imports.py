"""Which files a Python command reaches: its script, what that imports, and what it names.

Told from the text alone, nothing is run. Where it can't be told, the answer is "all of them":
a stage must not miss a file, but it may see too many.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from modelbuild.spec.recipe import Stage

_PYTHON = re.compile(r"python(\d+(\.\d+)*)?")
_LAUNCHERS = frozenset({"torchrun", "accelerate", "deepspeed"})
_LAUNCHER_MODULES = frozenset(
    {
        "accelerate.commands.launch",
        "cProfile",
        "deepspeed.launcher.launch",
        "torch.distributed.launch",
        "torch.distributed.run",
    }
)
_DYNAMIC_MODULES = frozenset({"importlib", "runpy", "pkgutil", "imp", "zipimport"})
_DYNAMIC_NAMES = frozenset({"__import__", "eval", "exec"})
_DYNAMIC_ATTRIBUTES = frozenset({("sys", "path"), ("sys", "meta_path"), ("sys", "path_hooks")})
_CODE = "/build/src/"
"""Where a stage has the recipe's code."""
_CONFIGURATION = frozenset({".cfg", ".gin", ".ini", ".json", ".toml", ".yaml", ".yml"})
# Both are tried only where a word begins: within a long one, every start would read it to its end.
_FILE_NAME = re.compile(r"(?<![\w./-])[\w./-]+\.py\b")
_DOTTED_NAME = re.compile(r"(?<!\w)\d*([^\W\d]\w*(?:[.:][^\W\d]\w*)+)")
# The same answer on every machine: syntax newer than the oldest Python that runs modelbuild
# is not understood on a newer one either.
_SYNTAX = (3, 11)


class _CannotTellError(Exception):
    """The files that are reached don't follow from the text."""


def reached_files(stage: Stage, files: Mapping[str, bytes]) -> set[str] | None:
    """The paths of `files` that the stage's command reaches, None where that can't be told."""
    try:
        search = _Search(files)
        search.start(stage)
        return search.reached
    except _CannotTellError:
        return None


class _Search:
    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files
        self._scripts = sorted(path for path in files if path.endswith(".py"))
        self._deepest = max((path.count("/") for path in files), default=0)
        self._roots = {""}
        """Folders from which modules are imported, each empty or with `/` at its end."""
        self._pending: list[str] = []
        self.reached: set[str] = set()

    def start(self, stage: Stage) -> None:
        self._search_in(stage.env.get("PYTHONPATH", ""))
        self._enter(_entry(stage.run))
        variables = (value for name, value in stage.env.items() if name != "PYTHONPATH")
        for text in (*stage.run[1:], *variables):
            self._named_in_command(text)
        for path in self._files:
            if not path.endswith(".py"):
                self._visit_other(path)
        while self._pending:
            self._visit(self._pending.pop())

    def _search_in(self, folders: str) -> None:
        """Folders of the recipe, as PYTHONPATH has them."""
        for folder in filter(None, folders.split(":")):
            path = f"{_normal(folder)}/".removeprefix("./").removeprefix(_CODE)
            if path.startswith("/") or {"..", "~"} & {*path.split("/")} or "{" in path:
                raise _CannotTellError
            self._roots.add(path)

    def _enter(self, entry: _Entry) -> None:
        """The script or module that the command runs; the first candidate that is ours."""
        for kind, name in entry:
            if kind == "module" and self._import(name):
                return
            path = _normal(name)
            if kind == "script" and path in self._files and path.endswith(".py"):
                self._roots.add(path[: path.rfind("/") + 1])
                self._add(path)
                return
        raise _CannotTellError

    def _named_in_command(self, argument: str) -> None:
        for text in (argument, argument.partition("=")[2]):
            if text and "{" not in text:
                path = _normal(text)
                self._add(*(p for p in self._scripts if p == path or p.startswith(f"{path}/")))
                self._modules_named(text)

    def _add(self, *paths: str) -> None:
        for path in paths:
            if path not in self.reached:
                self.reached.add(path)
                if path.endswith(".py"):
                    self._pending.append(path)

    def _add_folder(self, folder: str) -> bool:
        """All below a folder: what a package does not import it may list and load."""
        inside = [path for path in self._scripts if path.startswith(folder)]
        self._add(*inside)
        return bool(inside)

    def _import(self, module: str) -> bool:
        """A module by its absolute name. Of a package the whole outermost folder."""
        name = module.partition(".")[0]
        found = False
        for root in sorted(self._roots):
            found |= self._add_folder(f"{root}{name}/")
            if f"{root}{name}.py" in self._files:
                self._add(f"{root}{name}.py")
                found = True
        return found

    def _visit_other(self, path: str) -> None:
        """Not Python: always seen. Configuration may name modules that a library then imports."""
        self.reached.add(path)
        if PurePosixPath(path).suffix in _CONFIGURATION:
            text = self._files[path].decode(errors="replace")
            self._scripts_named(text)
            self._modules_named(text)

    def _visit(self, path: str) -> None:
        tree = _parse(self._files[path])
        for_people = _for_people(tree)
        runs_python = names_script = False
        for node in ast.walk(tree):
            match node:
                case ast.Import():
                    for alias in node.names:
                        self._import_statement(alias.name)
                case ast.ImportFrom():
                    self._import_from(path, node)
                case ast.Name(id=name) if name in _DYNAMIC_NAMES:
                    raise _CannotTellError
                case ast.Attribute(value=ast.Name(id=module), attr=name):
                    if (module, name) in _DYNAMIC_ATTRIBUTES:
                        raise _CannotTellError
                    runs_python |= (module, name) == ("sys", "executable")
                case ast.Constant(value=str(text)) if node not in for_people:
                    names_script |= self._literal(text)
        if runs_python and not names_script:
            raise _CannotTellError

    def _import_statement(self, module: str) -> None:
        if module.partition(".")[0] in _DYNAMIC_MODULES and module != "importlib.metadata":
            raise _CannotTellError
        self._import(module)

    def _import_from(self, path: str, node: ast.ImportFrom) -> None:
        names = {alias.name for alias in node.names}
        if node.level:
            folder = PurePosixPath(path).parents[min(node.level, path.count("/") + 1) - 1]
            self._add_folder("" if folder == PurePosixPath() else f"{folder}/")
        elif node.module == "importlib" and names == {"metadata"}:
            return
        elif node.module == "sys" and any(("sys", name) in _DYNAMIC_ATTRIBUTES for name in names):
            raise _CannotTellError
        else:
            self._import_statement(node.module or "")

    def _literal(self, text: str) -> bool:
        """What a string in a program names; whether it names a script."""
        if "*.py" in text or text in (".py", "-m"):
            raise _CannotTellError
        self._modules_named(text)
        return self._scripts_named(text)

    def _scripts_named(self, text: str) -> bool:
        """Scripts that a text names, in whatever folder: `worker.py`, `tools/worker.py`."""
        endings = {f"/{name.lstrip('./')}" for name in _FILE_NAME.findall(text)}
        named = [p for p in self._scripts if any(f"/{p}".endswith(e) for e in endings)]
        self._add(*named)
        return bool(named)

    def _modules_named(self, text: str) -> None:
        """Modules that a text names, or what they define: `nets.cnn:Net`."""
        for name in _DOTTED_NAME.findall(text):
            parts = re.split("[.:]", name)
            if any(self._is_defined(root, parts) for root in self._roots):
                self._import(".".join(parts))

    def _is_defined(self, root: str, parts: Sequence[str]) -> bool:
        for end in range(min(len(parts), self._deepest + 1), 0, -1):
            module = root + "/".join(parts[:end])
            for path in (f"{module}.py", f"{module}/__init__.py"):
                if path in self._files:
                    return end == len(parts) or _defines(self._files[path], parts[end])
        return False


def _defines(content: bytes, name: str) -> bool:
    definition = rf"^[^\S\n]*(?:(?:async\s+)?def|class)\s+{name}\b|^{name}\s*[:=]"
    return re.search(definition.encode(), content, re.MULTILINE) is not None


def _for_people(tree: ast.Module) -> set[ast.expr]:
    """Docstrings, and the help of a command line: they may name a script without using it."""
    found = set()
    for node in ast.walk(tree):
        match node:
            case ast.Expr(value=value):
                found.add(value)
            case ast.keyword(arg="help" | "description" | "epilog", value=value):
                found.add(value)
    return found


_Entry = Iterator[tuple[str, str]]
"""Candidates for what a command runs, the right one first: `script` or `module`, and its name."""


def _entry(run: Sequence[str]) -> _Entry:
    program, *arguments = run
    name = PurePosixPath(program).name
    if _PYTHON.fullmatch(name):
        yield from _python_entry(arguments)
    elif name in _LAUNCHERS:
        yield from _launched(arguments)
    else:
        yield "script", program


def _python_entry(arguments: Sequence[str]) -> _Entry:
    """What `python ARGUMENTS` runs; where that is an installed launcher, what it is given."""
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("-"):
            yield "script", argument
            return
        option = re.match(r"-[^-]*?([cmWX])(.*)", argument, re.DOTALL)
        if not option:
            if argument == "-":
                return
            continue
        value = option[2] or (rest.pop(0) if rest else "")
        if option[1] == "m":
            yield "module", value
            if value in _LAUNCHER_MODULES:
                yield from _launched(rest)
        if option[1] in "cm":
            return


def _launched(arguments: Sequence[str]) -> _Entry:
    for before, argument in zip(["", *arguments], arguments, strict=False):
        yield ("module" if before in ("-m", "--module") else "script"), argument


def _normal(path: str) -> str:
    return str(PurePosixPath(path))


def _parse(content: bytes) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(content, feature_version=_SYNTAX)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise _CannotTellError from None
