"""What a recipe's [environment] asks for."""

from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement

from modelbuild.errors import InvalidInputError
from modelbuild.locking.requirements import normalised, requirements_of
from modelbuild.spec.recipe import Determinism, Environment, Hardware, Recipe


def recipe(path: str = "models/recipe.toml", **environment: object) -> Recipe:
    return Recipe(
        path=PurePosixPath(path),
        name="digits",
        description="",
        environment=Environment(python="3.11", **environment),
        code=(),
        data={},
        params={},
        hardware=Hardware(),
        determinism=Determinism(),
        stages={},
        tolerances={},
        lines={"environment.packages": 7, "environment.project": 8, "environment.extras": 9}
        | {"environment.requirements": 8},
    )


def write(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / "models" / name.replace("__", "/").replace("_txt", ".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def refusal(root: Path, **environment: object) -> str:
    with pytest.raises(InvalidInputError) as caught:
        requirements_of(recipe(**environment), root)
    assert str(root) not in str(caught.value)
    return str(caught.value)


# -- packages -------------------------------------------------------------------------------------


def test_two_spellings_of_one_requirement_are_the_same(tmp_path: Path) -> None:
    packages = ("Scikit_Learn >= 1.7, <2", "scikit-learn<2,>=1.7", "torch == 2.13.0", "a.b[Y,x]")
    assert requirements_of(recipe(packages=packages), tmp_path) == (
        "a-b[x,y]",
        "scikit-learn<2,>=1.7",
        "torch==2.13.0",
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("torch==2.13.0+cpu", "torch==2.13.0+cpu"),
        ("numpy == 2.*", "numpy==2.*"),
        ("numpy~=2.1", "numpy~=2.1"),
        ("numpy (>=2)", "numpy>=2"),
        ("a; sys_platform=='linux'", 'a; sys_platform == "linux"'),
        ("A_b[X_y] >=1 ; extra=='z'", 'a-b[x-y]>=1; extra == "z"'),
    ],
)
def test_every_form_of_requirement_is_read(text: str, expected: str) -> None:
    assert normalised(text, "recipe.toml:7") == expected


_VERSIONS = st.lists(st.integers(0, 30), min_size=1, max_size=3).map(
    lambda parts: ".".join(map(str, parts))
)
_SPECIFIERS = st.lists(
    st.tuples(st.sampled_from(["==", ">=", "<=", "!=", "<", ">"]), _VERSIONS).map("".join),
    max_size=3,
)


@given(
    st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,5}[A-Za-z0-9])?", fullmatch=True),
    st.lists(st.sampled_from(["a", "b-c", "all"]), max_size=2),
    _SPECIFIERS,
    st.sampled_from(["", " "]),
)
def test_plain_requirements_read_as_packaging_reads_them(
    name: str, extras: list[str], specifiers: list[str], space: str
) -> None:
    text = name + (f"[{','.join(extras)}]" if extras else "") + space + ",".join(specifiers)
    plain = normalised(text, "")
    ours, theirs = Requirement(plain), Requirement(text)
    assert (ours.specifier, ours.extras) == (theirs.specifier, theirs.extras)
    assert normalised(plain, "") == plain
    assert normalised(f"{plain} ; os_name == 'x'", "").partition(";")[0] == str(ours)


@given(st.text(max_size=30))
def test_what_is_no_requirement_is_refused_in_one_message(text: str) -> None:
    try:
        normalised(text, "recipe.toml:7")
    except InvalidInputError as error:
        assert str(error).startswith("recipe.toml:7: ")  # noqa: PT017


def test_what_is_no_requirement_is_refused_with_its_line(tmp_path: Path) -> None:
    assert refusal(tmp_path, packages=("torch=2",)) == (
        "models/recipe.toml:7: not a requirement\n"
        "  found:   torch=2\n"
        "  because: Expected semicolon (after name with no version specifier) or end\n"
        'A requirement reads "name", "name==1.2" or "name[extra]>=1.2,<2".'
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("pkg @ https://me:secret@host/pkg.whl", "pkg @ https://host/pkg.whl"),
        ("pkg @ me:secret@host/pkg.whl", "pkg @ host/pkg.whl"),
        ("https://me:sec@ret@host/pkg.whl", "https://host/pkg.whl"),
        ("me:secret@host/pkg.whl", "host/pkg.whl"),
        ("git+https://token@host/pkg@main", "git+https://host/pkg@main"),
        ("./pkg", "./pkg"),
        ("-e .", "-e ."),
    ],
)
def test_a_located_package_is_refused(text: str, shown: str, tmp_path: Path) -> None:
    assert refusal(tmp_path, packages=(text,)) == (
        "models/recipe.toml:7: a package is named, not located\n"
        "  wanted: name and versions\n"
        f"  found:  {shown}\n"
        "The lock says what a wheel is; where it comes from is pip's or uv's configuration. A "
        "folder of wheels does for find-links; your own modules belong under [code]."
    )


# -- pyproject.toml -------------------------------------------------------------------------------

PROJECT = """
[project]
name = "my-project"
version = "1"
dependencies = ["torch>=2", "numpy"]
[project.optional-dependencies]
plots = ["matplotlib"]
text = ["my-project[plots]", "tokenizers"]
all = ["my-project[text,plots]"]
"""


def project(root: Path, text: str = PROJECT) -> Path:
    (root / "pyproject.toml").write_text(text)
    return root


def test_a_project_asks_for_its_dependencies_and_named_extras(tmp_path: Path) -> None:
    project(tmp_path)
    assert requirements_of(recipe(project="../pyproject.toml"), tmp_path) == ("numpy", "torch>=2")
    asked = recipe(project="../pyproject.toml", extras=("all",))
    assert requirements_of(asked, tmp_path) == ("matplotlib", "numpy", "tokenizers", "torch>=2")


def test_an_extra_that_is_not_there_is_refused(tmp_path: Path) -> None:
    project(tmp_path)
    assert refusal(tmp_path, project="../pyproject.toml", extras=("plot",)) == (
        "models/recipe.toml:9: pyproject.toml has no extra 'plot'\n  found: all, plots, text"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[tool.x]\n", "pyproject.toml: no [project] table, so no dependencies"),
        (
            '[project]\nname = "x"\ndynamic = ["dependencies"]\n',
            "pyproject.toml: [project] dependencies are dynamic, only its build backend knows "
            "them\nWrite them into [project], or name a requirements file in [environment].",
        ),
        (
            '[project]\nname = "x"\ndependencies = "torch"\n',
            "pyproject.toml: [project] dependencies is not a list of strings",
        ),
        (
            '[project]\nname = "x"\ndependencies = [1]\n',
            "pyproject.toml: [project] dependencies is not a list of strings",
        ),
        (
            '[project]\nname = "x"\ndependencies = ["lib"]\n'
            '[tool.uv.sources]\nlib = { path = "../lib" }\n',
            "pyproject.toml: [tool.uv.sources] takes 'lib' from elsewhere than an index\n"
            "Build a wheel of it into a folder that find-links names, or put its modules under "
            "[code] and leave it out of the dependencies.",
        ),
    ],
)
def test_a_project_that_cannot_be_read_is_refused(text: str, message: str, tmp_path: Path) -> None:
    assert refusal(project(tmp_path, text), project="../pyproject.toml") == message


def test_a_project_that_is_not_toml_is_refused(tmp_path: Path) -> None:
    message = refusal(project(tmp_path, "[project\n"), project="../pyproject.toml")
    assert message.startswith("pyproject.toml: not TOML\n  because: ")


# -- requirements files ---------------------------------------------------------------------------


def test_a_requirements_file_may_include_others_and_constrain(tmp_path: Path) -> None:
    write(
        tmp_path,
        main_txt="# models\n-r more/other.txt\ntorch==2.13.0  # pinned\nnumpy \\\n  >=2\n"
        "--constraint=limits.txt\n-rmain.txt\n",
        more__other_txt="Pandas\n-r ../main.txt\n",
        limits_txt="numpy<3\n",
    )
    assert requirements_of(recipe(requirements="main.txt"), tmp_path) == (
        "-c numpy<3",
        "numpy>=2",
        "pandas",
        "torch==2.13.0",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "\n--index-url https://me:secret@host/simple\n",
            "models/main.txt:2: option --index-url can't stand here\nWhere packages come from "
            "belongs to pip's or uv's configuration (pip config, uv.toml).",
        ),
        (
            "-ihttps://me:secret@host/simple\n",
            "models/main.txt:1: option -i can't stand here\nWhere packages come from "
            "belongs to pip's or uv's configuration (pip config, uv.toml).",
        ),
        (
            "-r https://me:secret@host/more.txt\n",
            "models/main.txt:1: -r and -c take files of the workspace\n"
            "  found: https://host/more.txt\n"
            "Keep a copy of it in the workspace.",
        ),
        (
            "pkg = https://me:secret@host/pkg.whl\n",
            "models/main.txt:1: not a requirement\n"
            "  found:   pkg = https://host/pkg.whl\n"
            "  because: Expected semicolon (after name with no version specifier) or end\n"
            'A requirement reads "name", "name==1.2" or "name[extra]>=1.2,<2".',
        ),
        (
            "--pre\n",
            "models/main.txt:1: option --pre can't stand here\n"
            "Of the options, -r and -c can stand in a requirements file.",
        ),
        (
            "a==1 \\\n  --hash=sha256:00\n",
            "models/main.txt:1: a requirement with hashes\n"
            "modelbuild pins hashes itself: name the file that this one was made from.",
        ),
        (
            "-r gone.txt\n",
            "models/main.txt:1: no such file\n  wanted: models/gone.txt",
        ),
        (
            "-r ../../gone.txt\n",
            "models/main.txt:1: the path leaves the workspace\n  found: ../gone.txt",
        ),
    ],
)
def test_what_cannot_stand_in_a_requirements_file_is_refused(
    text: str, message: str, tmp_path: Path
) -> None:
    assert refusal(write(tmp_path, main_txt=text), requirements="main.txt") == message


def test_a_file_that_is_not_utf8_or_not_there_is_refused(tmp_path: Path) -> None:
    write(tmp_path, main_txt="")
    (tmp_path / "models" / "main.txt").write_bytes(b"\xff\xfe\x00")
    assert refusal(tmp_path, requirements="main.txt") == "models/main.txt: not UTF-8"
    assert refusal(tmp_path, requirements="gone.txt") == (
        "models/recipe.toml:8: no such file\n  wanted: models/gone.txt"
    )
    assert refusal(tmp_path, requirements=".") == (
        "models: can't be read\n  because: Is a directory"
    )


def test_plain_packages_are_read_without_importing_packaging(tmp_path: Path) -> None:
    import subprocess
    import sys

    program = (
        "import sys; from modelbuild.locking.requirements import normalised;"
        "normalised('torch==2.13.0', ''); normalised('Scikit_learn[x]>=1.7,<2', '');"
        "print([m for m in ('packaging', 'subprocess', 'tomllib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[]\n"
