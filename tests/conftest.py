"""Fixtures: a store that has the interpreter, and small workspaces that really build."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import settings

from modelbuild.environment.interpreter import find_python, realise_interpreter
from modelbuild.store.store import Store, remove_tree

PYTHON = "3.11"

# A shell starts what it puts into the background with Ctrl-C ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The gate runs the same examples each time; whoever runs the tests by hand searches on.
settings.register_profile("gate", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("gate")

RECIPE = """\
schema = 1

[model]
name = "tiny"

[environment]
python = "3.11"
packages = []

[code]
include = ["*.py"]

[data.numbers]
path = "numbers.txt"

[params]
lr = 0.5

[determinism]
seed = 7

[stages.train]
run = ["python", "train.py", "{data.numbers}", "{params.lr}", "{out}"]
metrics = "metrics.json"

[stages.evaluate]
run = ["python", "evaluate.py", "{stages.train}/model.json", "{out}"]
metrics = "metrics.json"
"""

TRAIN = """\
import json, random, sys

numbers = [int(line) for line in open(sys.argv[1])]
print("training on", len(numbers))
weight = random.random() * float(sys.argv[2]) * sum(numbers)
json.dump({"weight": weight}, open(sys.argv[3] + "/model.json", "w"))
json.dump({"loss": weight}, open(sys.argv[3] + "/metrics.json", "w"))
"""

EVALUATE = """\
import json, sys

weight = json.load(open(sys.argv[1]))["weight"]
json.dump({"score": round(weight, 3)}, open(sys.argv[2] + "/metrics.json", "w"))
"""


@pytest.fixture(scope="session")
def interpreter_object(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The locked interpreter, made once: it takes seconds."""
    root = tmp_path_factory.mktemp("interpreter")
    python = find_python(PYTHON)
    interpreter = realise_interpreter(python.version, [python.digest], Store(root))
    yield interpreter.path
    remove_tree(root)


@pytest.fixture
def store(
    tmp_path: Path, interpreter_object: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Store]:
    """An empty store but for the interpreter; commands find it too."""
    root = tmp_path / "store"
    share_interpreter(root, interpreter_object)
    monkeypatch.setenv("MODELBUILD_STORE", str(root))
    yield Store(root)
    remove_tree(root)


def share_interpreter(root: Path, interpreter: Path) -> None:
    """Let the store at `root` have an interpreter of another one."""
    for kind in ("objects", "fingerprints"):
        (root / kind).mkdir(parents=True, exist_ok=True)
        there = interpreter.parent.parent / kind / interpreter.name
        (root / kind / interpreter.name).symlink_to(there)


@dataclass
class Ran:
    """A finished command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict:
        return json.loads(self.out)


@dataclass
class Tiny:
    """A workspace with one recipe of two stages, and the command line to use it with."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def replace(self, name: str, old: str, new: str) -> None:
        text = (self.root / name).read_text()
        assert old in text
        (self.root / name).write_text(text.replace(old, new))

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "modelbuild", *arguments]

    def run(self, *arguments: str, **variables: str) -> Ran:
        done = subprocess.run(
            self.command(*arguments),
            cwd=self.root,
            env={**os.environ, **self.environment, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            check=False,
        )
        assert "\nTraceback" not in f"\n{done.stderr}", done.stderr
        return Ran(done.returncode, done.stdout, done.stderr)

    def build(self, *arguments: str, **variables: str) -> dict:
        """Build, which must succeed; the JSON record's stages."""
        ran = self.run("build", "--json", *arguments, **variables)
        assert ran.code == 0, ran.err
        return ran.json["stages"]


@pytest.fixture
def tiny(tmp_path: Path, store: Store) -> Tiny:
    return make_tiny(tmp_path / "workspace")


@pytest.fixture(scope="session")
def reported(tmp_path_factory: pytest.TempPathFactory, interpreter_object: Path) -> Iterator[Tiny]:
    """What a page is written about, made once: many builds. Not to be changed."""
    from report_workspace import make_reported

    root = tmp_path_factory.mktemp("report")
    yield make_reported(root, interpreter_object)
    remove_tree(root / "store")


def make_tiny(root: Path, **environment: str) -> Tiny:
    workspace = Tiny(root, environment)
    workspace.write("recipe.toml", RECIPE)
    workspace.write("train.py", TRAIN)
    workspace.write("evaluate.py", EVALUATE)
    workspace.write("numbers.txt", "1\n2\n3\n")
    return workspace


def how(stages: dict) -> dict[str, str]:
    return {name: stage["how"] for name, stage in stages.items()}


# -- clones ----------------------------------------------------------------------------------------


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def commit(tiny: Tiny, subject: str = "change") -> None:
    git(tiny.root, "add", "-A")
    git(tiny.root, "commit", "-q", "-m", subject)


@pytest.fixture(scope="session")
def origin(interpreter_object: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with `workspace`, a locked recipe on main; `store` has its environment."""
    folder = tmp_path_factory.mktemp("origin")
    share_interpreter(folder / "store", interpreter_object)
    tiny = make_tiny(folder / "workspace", MODELBUILD_STORE=str(folder / "store"))
    tiny.write(".gitignore", "result-*\n")
    assert tiny.run("lock").code == 0
    git(tiny.root, "init", "-q", "-b", "main")
    for name in ("name", "email"):
        git(tiny.root, "config", f"user.{name}", "someone@example.com")
    commit(tiny, "begin")
    tiny.build("--no-link")
    git(tiny.root, "branch", "unbuilt")
    commit(tiny, "claims")
    git(tiny.root, "branch", "built")
    yield folder
    remove_tree(folder / "store")


@pytest.fixture
def branch(origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tiny]:
    """A clone on the branch `feature`, which has begun at `main` of a bare origin."""
    yield from a_clone("unbuilt", origin, tmp_path, monkeypatch)


@pytest.fixture
def built(origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tiny]:
    """The same with claims on main, and what they claim in the store."""
    yield from a_clone("built", origin, tmp_path, monkeypatch)


def a_clone(
    main: str, origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Tiny]:
    shutil.copytree(origin / "store", tmp_path / "store", symlinks=True)
    monkeypatch.setenv("MODELBUILD_STORE", str(tmp_path / "store"))
    shutil.copytree(origin / "workspace", tmp_path / "workspace")
    tiny = Tiny(tmp_path / "workspace")
    git(tiny.root, "checkout", "-q", "-B", "main", main)
    git(tmp_path, "clone", "-q", "--bare", str(tiny.root), "origin.git")
    git(tiny.root, "remote", "add", "origin", f"file://{tmp_path}/origin.git")
    git(tiny.root, "fetch", "-q")
    git(tiny.root, "checkout", "-q", "-b", "feature")
    yield tiny
    remove_tree(tmp_path / "store")
