"""The code of a recipe, and what each stage sees of it."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelbuild.errors import InvalidInputError, ModelbuildError
from modelbuild.locking.code import recipe_code, stage_code
from modelbuild.spec.digest import Digest
from modelbuild.spec.lock import LockedFile
from modelbuild.spec.recipe import Determinism, Environment, Hardware, Recipe, Stage


def a_recipe(*include: str, path: str = "recipes/digits/recipe.toml") -> Recipe:
    return Recipe(
        path=PurePosixPath(path),
        name="digits",
        description="",
        environment=Environment(python="3.11"),
        code=include,
        data={},
        params={},
        hardware=Hardware(),
        determinism=Determinism(),
        stages={},
        tolerances={},
        lines={"code": 7, "code.include": 8},
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A recipe's folder in a workspace, with a little of everything."""
    root = tmp_path / "workspace" / "recipes" / "digits"
    for path in (
        "train.py",
        "evaluate.py",
        "recipe.toml",
        "model.lock",
        "notes.txt",
        "nets/cnn.py",
        "nets/__init__.py",
        "nets/deep/block.py",
        "nets/deep/weights.json",
        "nets/__pycache__/cnn.pyc",
        "nets/.hidden/secret.py",
        "nets/.secret.py",
        "node_modules/tool/index.py",
        ".venv/lib.py",
        "venv/pyvenv.cfg",
        "venv/lib.py",
    ):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(f"# {path}\n")
    return root


def names(folder: Path, *include: str) -> list[str]:
    return list(recipe_code(a_recipe(*include), folder))


@pytest.mark.parametrize(
    ("include", "found"),
    [
        ("train.py", ["train.py"]),
        ("./train.py", ["train.py"]),
        ("*.py", ["evaluate.py", "train.py"]),
        ("t?ain.[p]y", ["train.py"]),
        ("nets/*.py", ["nets/__init__.py", "nets/cnn.py"]),
        ("nets/**/*.py", ["nets/__init__.py", "nets/cnn.py", "nets/deep/block.py"]),
        ("**/block.py", ["nets/deep/block.py"]),
        ("**/deep/**/*.json", ["nets/deep/weights.json"]),
        ("n*/d*/*", ["nets/deep/block.py", "nets/deep/weights.json"]),
        ("nets/deep", ["nets/deep/block.py", "nets/deep/weights.json"]),
        ("nets/deep/", ["nets/deep/block.py", "nets/deep/weights.json"]),
        ("nets/deep/**", ["nets/deep/block.py", "nets/deep/weights.json"]),
        ("nets/.secret.py", ["nets/.secret.py"]),
        ("nets/.*.py", ["nets/.secret.py"]),
        ("nets/.hidden", ["nets/.hidden/secret.py"]),
        ("recipe.toml", ["recipe.toml"]),
    ],
)
def test_what_a_pattern_takes_in(include: str, found: list[str], folder: Path) -> None:
    assert names(folder, include) == found


def test_the_whole_folder_is_code_without_recipe_lock_and_what_tools_leave(folder: Path) -> None:
    everything = [
        "evaluate.py",
        "nets/__init__.py",
        "nets/cnn.py",
        "nets/deep/block.py",
        "nets/deep/weights.json",
        "notes.txt",
        "train.py",
    ]
    assert names(folder, ".") == everything
    assert names(folder, "**") == everything


def test_a_recipe_at_the_top_of_the_workspace_has_code(folder: Path) -> None:
    assert list(recipe_code(a_recipe("*.py", path="recipe.toml"), folder)) == [
        "evaluate.py",
        "train.py",
    ]


def test_patterns_that_overlap_name_a_file_once(folder: Path) -> None:
    assert names(folder, "train.py", "*.py", "**/*.py")[-1:] == ["train.py"]
    assert len(names(folder, "*.py", "train.py")) == 2


def test_a_file_is_pinned_by_content_lines_and_executable_bit(folder: Path) -> None:
    tool = folder / "tool"
    tool.write_bytes(b"#!/bin/sh\nexit 0")
    tool.chmod(0o744)
    (folder / "empty").touch()
    assert recipe_code(a_recipe("tool", "empty"), folder) == {
        "empty": LockedFile(digest=Digest.of(b""), lines=0),
        "tool": LockedFile(digest=Digest.of(b"#!/bin/sh\nexit 0"), lines=2, executable=True),
    }


def test_names_may_hold_spaces_and_ends_of_lines(folder: Path) -> None:
    (folder / "a b\nc.py").write_text("")
    assert names(folder, "a*.py") == ["a b\nc.py"]
    assert names(folder, "a b\nc.py") == ["a b\nc.py"]


def test_a_name_that_is_not_utf_8_is_an_error(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.py")).touch()
    assert failure(folder, "*.py") == (
        "recipes/digits/recipe.toml:8: the name of a file of code is not UTF-8\n  file: \\xff.py"
    )


def test_a_link_to_a_file_of_the_workspace_is_code_with_its_content(folder: Path) -> None:
    shared = folder.parent / "shared.py"
    shared.write_text("shared = True\n")
    (folder / "linked.py").symlink_to("../shared.py")
    found = recipe_code(a_recipe("*.py"), folder)
    assert found["linked.py"] == LockedFile(digest=Digest.of(b"shared = True\n"), lines=1)


def test_a_link_out_of_the_workspace_is_an_error(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "outside.py").touch()
    (folder / "linked.py").symlink_to("../../../outside.py")
    assert failure(folder, "*.py") == (
        "recipes/digits/recipe.toml:8: a link leads out of the workspace\n"
        "  link:     linked.py\n"
        "  leads to: ../../../outside.py\n"
        "Copy the file into the workspace."
    )


def test_a_link_that_leads_nowhere_is_an_error(folder: Path) -> None:
    (folder / "linked.py").symlink_to("absent.py")
    with pytest.raises(ModelbuildError) as caught:
        names(folder, "*.py")
    assert str(caught.value) == (
        "can't read linked.py, which is code\n  found: No such file or directory"
    )


def test_links_that_form_a_ring_are_an_error(folder: Path) -> None:
    (folder / "linked.py").symlink_to("linked.py")
    with pytest.raises(ModelbuildError, match=r"can't read linked\.py"):
        names(folder, "linked.py")


def test_links_to_folders_and_to_results_are_not_followed(folder: Path) -> None:
    (folder / "nets/again").symlink_to("../nets")
    (folder / "result-digits").symlink_to("/")
    (folder / "nets/result-digits").symlink_to("cnn.py")
    assert names(folder, "nets/*") == ["nets/__init__.py", "nets/cnn.py"]
    assert len(names(folder, "**/*.py")) == 5


def test_a_fifo_is_not_read(folder: Path) -> None:
    os.mkfifo(folder / "nets/fifo.py")
    assert names(folder, "nets/*.py") == ["nets/__init__.py", "nets/cnn.py"]


def failure(folder: Path, *include: str) -> str:
    with pytest.raises(InvalidInputError) as caught:
        names(folder, *include)
    return str(caught.value)


def test_a_file_that_does_not_exist_names_the_nearest(folder: Path) -> None:
    assert failure(folder, "nets/cmn.py") == (
        "recipes/digits/recipe.toml:8: code 'nets/cmn.py' does not exist\n"
        "  wanted:  nets/cmn.py\n"
        "  nearest: nets/cnn.py"
    )


def test_a_glob_that_matches_nothing_is_an_error(folder: Path) -> None:
    assert failure(folder, "**/*.rs") == (
        "recipes/digits/recipe.toml:8: code '**/*.rs' matches no file\n  wanted: **/*.rs"
    )


@pytest.mark.parametrize("pattern", ["linked", "linked/cnn.py", "linked/*.py"])
def test_a_pattern_through_a_link_to_a_folder_says_so(pattern: str, folder: Path) -> None:
    (folder / "linked").symlink_to("nets")
    assert "found:  linked, a link to a folder; such links are not followed" in failure(
        folder, pattern
    )


def test_the_lock_is_never_code(folder: Path) -> None:
    assert failure(folder, "model.lock") == (
        "recipes/digits/recipe.toml:8: the lock can't be code\n"
        "  found: model.lock\n"
        "The lock holds the digests of the code."
    )
    assert "matches no file" in failure(folder, "*.lock")


# What a stage sees.


def a_stage(*run: str, code: tuple[str, ...] | None = None, **env: str) -> Stage:
    return Stage(name="train", run=run or ("python", "train.py"), code=code, env=env)


def seen(files: dict[str, str], *run: str, **env: str) -> list[str] | None:
    found = stage_code(a_stage(*run, **env), {k: v.encode() for k, v in files.items()})
    return None if found is None else list(found)


OTHER = {"train.py": "", "evaluate.py": "", "other.py": ""}


def test_code_of_its_own_decides_what_a_stage_sees() -> None:
    files = dict.fromkeys(("train.py", "evaluate.py", "conf/a.yaml"), b"import evaluate")
    assert stage_code(a_stage(code=("train.py",)), files) == ("train.py",)
    assert stage_code(a_stage(code=("*.py",)), files) == ("evaluate.py", "train.py")
    assert stage_code(a_stage(code=("conf", "train.py")), files) == ("conf/a.yaml", "train.py")
    assert stage_code(a_stage(code=("**",)), files) is None


def test_code_of_its_own_that_matches_nothing_is_an_error() -> None:
    with pytest.raises(InvalidInputError) as caught:
        stage_code(a_stage(code=("trian.py",)), {"train.py": b""}, "recipe.toml:9")
    assert str(caught.value) == (
        "recipe.toml:9: stage 'train': code 'trian.py' matches none of the recipe's code\n"
        "  wanted:  part of what [code] include takes in\n"
        "  found:   trian.py\n"
        "  nearest: train.py"
    )


@pytest.mark.parametrize(
    "run",
    [
        ["python", "train.py"],
        ["python3.11", "./train.py"],
        ["/build/env/bin/python", "-u", "-X", "dev", "-Wignore", "train.py", "--lr", "1"],
        ["python", "-m", "train"],
        ["python", "-um", "train"],
        ["python", "-mtrain"],
        ["torchrun", "--nproc-per-node", "2", "train.py"],
        ["torchrun", "-m", "train"],
        ["accelerate", "launch", "--module", "train"],
        ["python", "-m", "torch.distributed.run", "--nproc-per-node=2", "train.py"],
        ["./train.py"],
    ],
)
def test_the_script_of_a_command_is_found(run: list[str]) -> None:
    assert seen(OTHER, *run) == ["train.py"]


@pytest.mark.parametrize(
    "run",
    [
        ["python", "-c", "import evaluate", "train.py"],
        ["python", "-"],
        ["python"],
        ["python", "-m"],
        ["python", "{data.digits}/train.py"],
        ["python", "-m", "pytest", "train.py"],
        ["bash", "run.sh", "train.py"],
        ["make", "train.py"],
        ["env", "PYTHONPATH=lib", "python", "train.py"],
        ["torchrun", "absent.py"],
    ],
)
def test_a_command_that_is_not_understood_sees_all(run: list[str]) -> None:
    assert seen(OTHER, *run) is None


@pytest.mark.parametrize("path", ["lib", "./lib/:", "/build/src/lib"])
def test_modules_are_looked_for_where_the_stage_has_python_look(path: str) -> None:
    files = {**OTHER, "train.py": "import base", "lib/base.py": "", "lib/other.py": ""}
    assert seen(files, "python", "train.py", PYTHONPATH=path) == ["lib/base.py", "train.py"]


@pytest.mark.parametrize("path", ["/opt/lib", "../lib", "{data.x}", "lib/../.."])
def test_an_import_path_outside_of_the_code_sees_all(path: str) -> None:
    assert seen(OTHER, "python", "train.py", PYTHONPATH=path) is None


def test_scripts_and_folders_named_by_arguments_are_seen() -> None:
    files = {**OTHER, "config.py": "import base", "base.py": "", "plugins/a.py": ""}
    assert seen(files, "python", "train.py", "--config=config.py", "plugins") == [
        "base.py",
        "config.py",
        "plugins/a.py",
        "train.py",
    ]
    assert seen(files, "python", "train.py", PLUGIN="plugins/a.py") == ["plugins/a.py", "train.py"]


@pytest.mark.parametrize(
    "statement",
    [
        "import used",
        "import os, used as u",
        "from used import thing",
        "from used import *",
        "def f():\n    import used",
        "try:\n    import used\nexcept ImportError:\n    used = None",
        "if TYPE_CHECKING:\n    from used import Thing",
        "import first",
        "run(['worker', 'used.py'])",
        "os.system('python used.py --fast')",
        "Path(__file__).parent / 'used.py'",
        "load(f'{here}/used.py')",
        "instantiate('used:Thing')",
        "instantiate('used.Thing')",
        "pickle.dumps('used.thing')",
        "subprocess.run([sys.executable, 'used.py'])",
    ],
)
def test_what_a_script_reaches_is_seen_and_nothing_else(statement: str) -> None:
    files = {
        **OTHER,
        "train.py": statement,
        "first.py": "import used",
        "used.py": "import numpy\nclass Thing: pass\nthing = Thing()",
    }
    expected = {"train.py", "used.py"} | ({"first.py"} if "first" in statement else set())
    assert seen(files) == sorted(expected)


@pytest.mark.parametrize(
    "harmless",
    [
        "'''See evaluate.py, and evaluate.main.'''",
        "def f():\n    'Used by evaluate.py.'",
        "parser.add_argument('--tokens', help='what evaluate.py wrote')",
        "model.eval()",
        "re.compile('x')",
        "json.load(open('evaluate.json'))",
        "save(out / 'other.safetensors')",
        "mode = 'evaluate'",
        "import importlib.metadata",
        "from importlib import metadata\nfrom importlib.metadata import version",
        "subprocess.run(['git', 'status'])",
        "print('\\d')",
    ],
)
def test_what_only_looks_like_a_use_is_none(harmless: str) -> None:
    assert seen({**OTHER, "train.py": harmless}) == ["train.py"]


@pytest.mark.parametrize(
    "dynamic",
    [
        "import importlib",
        "from importlib import import_module",
        "import importlib.resources",
        "import runpy",
        "from pkgutil import iter_modules",
        "__import__('used')",
        "exec(text)",
        "f = eval",
        "sys.path.insert(0, 'lib')",
        "from sys import path",
        "glob('plugins/*.py')",
        "open(f'plugins/{name}.py')",
        "subprocess.run([sys.executable, script])",
        "subprocess.run(['python', '-m', module])",
        "def broken(:",
        "\0",
        "type X = int",
    ],
)
def test_what_cannot_be_told_sees_all(dynamic: str) -> None:
    assert seen({**OTHER, "train.py": dynamic}) is None
    assert seen({**OTHER, "train.py": "import used", "used.py": dynamic}) is None
    assert seen({**OTHER, "evaluate.py": dynamic}) == ["train.py"]


def test_a_package_brings_its_whole_folder() -> None:
    files = {
        **OTHER,
        "train.py": "from nets.cnn import Net",
        "nets/__init__.py": "",
        "nets/cnn.py": "from . import layers",
        "nets/layers.py": "",
        "nets/plugins/late.py": "import helper",
        "netsmore/a.py": "",
        "helper.py": "",
    }
    assert seen(files) == [
        "helper.py",
        "nets/__init__.py",
        "nets/cnn.py",
        "nets/layers.py",
        "nets/plugins/late.py",
        "train.py",
    ]


def test_a_package_without_init_is_a_package() -> None:
    assert seen({**OTHER, "train.py": "import nets.cnn", "nets/cnn.py": ""}) == [
        "nets/cnn.py",
        "train.py",
    ]


def test_a_module_that_is_run_brings_its_package() -> None:
    files = {"app/train.py": "from .data import x", "app/data.py": "", "evaluate.py": ""}
    assert seen(files, "python", "-m", "app.train") == ["app/data.py", "app/train.py"]


def test_a_script_in_a_folder_imports_from_there_and_from_the_top() -> None:
    files = {
        "scripts/train.py": "import near, far",
        "scripts/near.py": "",
        "scripts/evaluate.py": "",
        "far.py": "import near",
    }
    assert seen(files, "python", "scripts/train.py") == [
        "far.py",
        "scripts/near.py",
        "scripts/train.py",
    ]


def test_a_relative_import_brings_the_folder_it_starts_from() -> None:
    files = {"app/sub/train.py": "from ..core import x", "app/core.py": "", "evaluate.py": ""}
    assert seen(files, "python", "app/sub/train.py") == ["app/core.py", "app/sub/train.py"]


def test_what_is_not_python_is_always_seen() -> None:
    files = {**OTHER, "conf/a.yaml": "lr: 1", "kernel.cu": ""}
    assert seen(files) == ["conf/a.yaml", "kernel.cu", "train.py"]


def test_modules_that_a_configuration_names_are_seen() -> None:
    files = {
        **OTHER,
        "conf/a.yaml": "net: {_target_: nets.cnn.Net}\nlog: evaluate.txt",
        "nets/cnn.py": "class Net: pass",
    }
    assert seen(files) == ["conf/a.yaml", "nets/cnn.py", "train.py"]


@pytest.mark.parametrize("word", ["a", "1", "a1", "a.", "a.py/", "./", "a b.c "])
def test_a_megabyte_of_text_in_a_program_is_read_like_any_other(word: str) -> None:
    long = word * (1_000_000 // len(word))
    files = {"train.py": f"blob = {long!r}\nuse = '{long} nets.cnn:Net tools/worker.py'"}
    files |= {
        "nets/cnn.py": "class Net: ...",
        "worker.py": "",
        "tools/worker.py": "",
        "other.py": "",
    }
    assert seen(files, "python", "train.py") == ["nets/cnn.py", "tools/worker.py", "train.py"]


def test_all_that_is_there_is_all() -> None:
    assert seen({"train.py": "import used", "used.py": ""}) is None


modules = ["train", "evaluate", "nets.cnn", "nets.deep.block", "lib"]


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.sampled_from(modules), st.lists(st.sampled_from(modules)), min_size=1))
def test_what_python_imports_is_seen(imports: dict[str, list[str]]) -> None:
    """Whatever a chain of imports reaches is seen, or all is."""
    files = {
        f"{module.replace('.', '/')}.py": "".join(f"import {each}\n" for each in used)
        for module, used in {"train": [], **imports}.items()
    }
    reached, pending = set(), ["train"]
    while pending:
        module = pending.pop()
        path = f"{module.replace('.', '/')}.py"
        if path in files and path not in reached:
            reached.add(path)
            pending += imports.get(module, [])
    found = seen(files)
    assert reached <= set(files if found is None else found)
