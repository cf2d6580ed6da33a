"""Read the end of a failed stage's log: which line of the recipe would have helped?"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

from modelbuild.spec.package_names import DISTRIBUTIONS
from modelbuild.spec.references import variable_suffix

WorkspaceHas: TypeAlias = Callable[[str], bool]
"""Whether a path, relative to the recipe or the workspace, exists."""

CODE_SUFFIXES = {".cfg", ".ini", ".json", ".py", ".pyx", ".sh", ".toml", ".yaml", ".yml"}
OWN_FOLDERS = ("/build/", "/tmp/", "/usr/", "/etc/", "/proc/", "/dev/", "/sys/", "/lib")  # noqa: S108

_MISSING_FILE = re.compile(
    r"""No\ such\ file\ or\ directory:?\ b?(?P<quote>['"])(?P<python>.+?)(?P=quote)
    | can't\ open\ file\ '(?P<script>.+?)':\ \[Errno\ 2\]
    | FileNotFoundError:\ (?P<numpy>\S+)\ not\ found
    | :\ (?:cannot\ (?:open|access)\ )?'?(?P<shell>[^\s:']+)'?:\ No\ such\ file\b""",
    re.VERBOSE,
)
_WRITING = re.compile(
    r"""\b(?:open|fdopen)\(.*['"][wax]b?\+?['"] | mode=['"][wax] | \.(?:write_text|write_bytes)\(
    | \.(?:dump|save|savez|savetxt|savefig|imwrite|save_\w+|to_(?:csv|json|parquet|pickle))\(""",
    re.VERBOSE,
)
_NO_FOLDER = re.compile(
    r"""Cannot\ save\ file\ into\ a\ non-existent\ directory:\ '(?P<pandas>.+?)'
    | Parent\ directory\ (?P<torch>\S+)\ does\ not\ exist
    | cannot\ create\ (?P<shell>\S+):\ Directory\ nonexistent""",
    re.VERBOSE,
)
_WARNING = re.compile(r"^.+\b\w*Warning: .*$", re.MULTILINE)
"""That is printed, with its place before it; one that is raised begins the line."""
_MISSING_MODULE = re.compile(r"No module named '?([\w.]+)'?")
_DOWNLOAD = re.compile(
    r"""Temporary\ failure\ in\ name\ resolution | Name\ or\ service\ not\ known
    | gaierror | URLError | Could\ not\ resolve\ host | Network\ is\ unreachable
    | Max\ retries\ exceeded\ with\ url | (?:requests|urllib3|httpx|httpcore|aiohttp)\S*Error
    | NewConnectionError | ClientConnectorError | ConnectionError | ConnectError
    | OfflineModeIsEnabled | LocalEntryNotFoundError | couldn't\ connect\ to\ 'http
    | HF_HUB_OFFLINE | OfflineMode | unable\ to\ resolve\ host\ address""",
    re.VERBOSE,
)
_PIP = re.compile(r"No matching distribution found for ([A-Za-z0-9._-]+)")
_POOL = re.compile(
    r"HTTP(S?)ConnectionPool\(host='([^']+)', port=\d+\): Max retries exceeded with url: (\S+)"
)
_URL = re.compile(r"https?://[^\s'\"<>()\[\]/]+/[^\s'\"<>()\[\]]+")
_DOCUMENTATION = re.compile(r"/docs?/|//docs\.|/issues/|/wiki/|#")
_READ_ONLY = re.compile(r"Read-only file system(?:: b?(?P<quote>['\"])(?P<path>.+?)(?P=quote))?")
_FULL = re.compile(r"No space left on device|killed by signal: Bus error")
_MEMORY = re.compile(
    r"""^MemoryError | can't\ allocate\ memory | Cannot\ allocate\ memory | ^Killed$
    | numpy\S*_ArrayMemoryError | std::bad_alloc | (?P<gpu>CUDA\ out\ of\ memory)
    | killed\ by\ signal:\ Killed | died\ with\ <Signals\.SIGKILL | exitcode:?\ -9\b""",
    re.VERBOSE | re.MULTILINE,
)


class _Finding(NamedTuple):
    position: int
    advice: str


def explain_failure(
    log_tail: bytes,
    workspace_has: WorkspaceHas,
    declared: Mapping[str, str] = MappingProxyType({}),
    code: Collection[str] = (),
) -> str | None:
    """Advice for what the log last complains about, without warnings; None where it tells nothing.

    `declared` are paths of data, relative to the recipe, and the names of their tables; `code`
    the paths of the code that the stage sees.
    """
    log = _WARNING.sub("", log_tail.decode(errors="replace"))
    found = [
        *_missing_files(log, workspace_has, declared),
        *_missing_folders(log),
        *_missing_modules(log, workspace_has, code),
        *_downloads(log),
        *_read_only(log),
        *_exhausted(log),
    ]
    return max(found, key=lambda finding: finding.position).advice if found else None


def _missing_files(
    log: str, workspace_has: WorkspaceHas, declared: Mapping[str, str]
) -> Iterator[_Finding]:
    for match in _MISSING_FILE.finditer(log):
        path = next(text for name, text in match.groupdict().items() if text and name != "quote")
        path = _below_src(path, workspace_has)
        if _is_written(log[: match.start()]):
            advice: str | None = _no_folder(path)
        else:
            advice = _declared_file(path, declared) or _missing_file(path, workspace_has)
        if advice:
            yield _Finding(match.start(), advice)


def _is_written(before: str) -> bool:
    """Whether the traceback that ends here shows a call that writes, in its last two frames."""
    _, traceback, frames = before.rpartition("Traceback (most recent call last):")
    last = "".join(frames.split('\n  File "')[-2:])
    return bool(traceback) and _WRITING.search(last) is not None


def _missing_folders(log: str) -> Iterator[_Finding]:
    for match in _NO_FOLDER.finditer(log):
        path = next(text for text in match.groupdict().values() if text)
        yield _Finding(match.start(), _no_folder(path))


def _no_folder(path: str) -> str:
    return (
        f"{path} can't be written, for its folder is missing: a stage writes to its output folder "
        "only. Pass {out} to the\ncommand, or let it write below $MODELBUILD_OUT."
    )


def _below_src(path: str, workspace_has: WorkspaceHas) -> str:
    """As the recipe writes it. Without namespaces the code lies in a host's folder `src`."""
    below = path.partition("/src/")[2]
    if path.startswith("/build/src/") or (path.startswith("/") and below and workspace_has(below)):
        return below
    return path.removeprefix("./")


def _declared_file(path: str, declared: Mapping[str, str]) -> str | None:
    place = PurePosixPath(path)
    for known, name in declared.items():
        if place.is_relative_to(known):
            return (
                f"{path} is declared as data '{name}', which a stage does not find at that path.\n"
                f"Pass {{data.{name}}} to the command, or let the script read the path from the\n"
                f"environment variable MODELBUILD_DATA_{variable_suffix(name)}."
            )
    return None


def _missing_file(path: str, workspace_has: WorkspaceHas) -> str | None:
    if path.startswith("/"):
        if path.startswith(OWN_FOLDERS):
            return None
        return (
            f"The stage looked for {path}: a stage sees no path of this machine.\n"
            f"Declare it as data, and pass {{data.{_table(path)}}} to the command:\n"
            f"{_data_lines(path, 'location', 'NAME')}"
        )
    if ".." in PurePosixPath(path).parts or not workspace_has(path):
        return None
    if PurePosixPath(path).suffix in CODE_SUFFIXES:
        return (
            f"{path} exists in the workspace, but the recipe does not declare it. Add it to:\n"
            f'  [code]\n  include = [..., "{path}"]'
        )
    return (
        f"{path} exists in the workspace, but the recipe does not declare it. Add\n"
        f"{_data_lines(path, 'path', path)}\n"
        f"and pass {{data.{_table(path)}}} to the command, which is where the stage finds it."
    )


def _missing_modules(
    log: str, workspace_has: WorkspaceHas, code: Collection[str]
) -> Iterator[_Finding]:
    for match in _MISSING_MODULE.finditer(log):
        module = match[1]
        top = module.partition(".")[0]
        include = _module_files(module, workspace_has)
        if seen := _seen_module(module, code):
            folder = seen.removesuffix(f"{module.replace('.', '/')}.py")
            folder = folder.removesuffix(f"{module.replace('.', '/')}/__init__.py")
            advice = (
                f"Module '{module}' is part of the stage's code ({seen}), but Python does not "
                "search that folder\nfor it. Add to the stage:\n"
                f'  env = {{ PYTHONPATH = "{folder.rstrip("/") or "."}" }}'
            )
        elif include:
            advice = (
                f"Module '{module}' exists in the workspace, but the recipe does not declare it. "
                f'Add it to:\n  [code]\n  include = [..., "{include}"]'
            )
        elif top in sys.stdlib_module_names:
            continue
        else:
            package = DISTRIBUTIONS.get(module) or DISTRIBUTIONS.get(top) or top.replace("_", "-")
            advice = (
                f"Module '{module}' is not in the environment. Add its package to:\n"
                f'  [environment]\n  packages = [..., "{package}"]'
            )
        yield _Finding(match.start(), advice)


def _seen_module(module: str, code: Collection[str]) -> str | None:
    """The file that defines it, of several the uppermost."""
    path = module.replace(".", "/")
    names = (f"/{path}.py", f"/{path}/__init__.py")
    found = [each for each in code if f"/{each}".endswith(names)]
    return min(found, key=lambda each: (each.count("/"), each), default=None)


def _module_files(module: str, workspace_has: WorkspaceHas) -> str | None:
    """The glob that declares a module of the workspace."""
    path = module.replace(".", "/")
    if workspace_has(f"{path}.py"):
        return f"{path}.py"
    top = module.partition(".")[0]
    if workspace_has(f"{top}.py"):
        return f"{top}.py"
    return f"{top}/**/*.py" if workspace_has(top) else None


def _downloads(log: str) -> Iterator[_Finding]:
    for match in _PIP.finditer(log):
        advice = (
            "Stages have no network: packages are installed before, from the lock. Add:\n"
            f'  [environment]\n  packages = [..., "{match[1]}"]'
        )
        yield _Finding(match.start(), advice)
    for match in _DOWNLOAD.finditer(log):
        url = _url(log) or "https://..."
        advice = (
            "The stage tried to download. Stages have no network: declare what they read, and "
            f"pass {{data.{_table(url)}}} to the command:\n{_data_lines(url, 'url', url)}"
        )
        yield _Finding(match.start(), advice)


def _url(log: str) -> str | None:
    """The last address that the log names and that is not a page to read."""
    if pools := _POOL.findall(log):
        secure, host, path = pools[-1]
        return f"http{secure.lower()}://{host}{path}"
    urls = [url.rstrip(".,;:") for url in _URL.findall(log) if not _DOCUMENTATION.search(url)]
    return urls[-1] if urls else None


def _read_only(log: str) -> Iterator[_Finding]:
    for match in _READ_ONLY.finditer(log):
        where = f"{match['path']}: " if match["path"] else ""
        advice = (
            f"{where}a stage writes to its output folder only. Pass {{out}} to the command, or "
            "let it write below $MODELBUILD_OUT; what is not kept can go to /tmp."
        )
        yield _Finding(match.start(), advice)


def _exhausted(log: str) -> Iterator[_Finding]:
    for match in _MEMORY.finditer(log):
        advice = (
            "The GPU's memory was not enough for the stage."
            if match["gpu"]
            else "This machine's memory was not enough for the stage; a smaller batch, or fewer "
            "workers, need less. `modelbuild doctor` shows how much there is."
        )
        yield _Finding(match.start(), advice)
    for match in _FULL.finditer(log):
        advice = (
            "A stage's /tmp and /dev/shm lie in memory and are bounded; or the disk is full. "
            "Write what is large below {out}, or let data loaders use fewer workers."
        )
        yield _Finding(match.start(), advice)


def _data_lines(path: str, kind: str, value: str) -> str:
    return f'  [data.{_table(path)}]\n  {kind} = "{value}"'


def _table(path: str) -> str:
    """A name for a data table, from the last part of a path or an address."""
    last = PurePosixPath(path.partition("?")[0].rstrip("/")).name
    return re.sub(r"[^A-Za-z0-9_-]+", "-", last.partition(".")[0]).strip("-") or "NAME"
