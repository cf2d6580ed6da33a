"""Whatever stands in a recipe, it is read or refused in one message, never a traceback."""

from __future__ import annotations

import copy
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packaging.requirements import InvalidRequirement, Requirement

from modelbuild.errors import InvalidInputError, ModelbuildError, UsageError
from modelbuild.spec.canonical import canonical_bytes
from modelbuild.spec.recipe import Recipe
from modelbuild.spec.recipe_environment import is_common_requirement
from modelbuild.spec.recipe_file import parse_recipe
from modelbuild.spec.recipe_settings import override
from modelbuild.spec.references import expand, references, render_param
from modelbuild.spec.toml_lines import key_lines

PATH = PurePosixPath("recipes/digits/recipe.toml")

FULL = """\
schema = 1

[model]
name = "digits"
description = "hand-written digits"

[environment]
python = "3.11.7"
packages = ["torch==2.13.0", "numpy[x] ; python_version > '3'"]
resolver = "uv"
platform = "x86_64-manylinux_2_28"
from-source = ["apex"]
exclude-newer = "2026-01-31"
base = "host"

[code]
include = ["train.py", "nets/**/*.py"]

[data]
files = { path = "../data/*.csv" }
images = { location = "imagenet", folder = "train" }
text = { url = "https://example.org/t.tar.gz", sha256 = "SHA256", unpack = true }
digits = { package = "scikit-learn", file = "sklearn/datasets/data/digits.csv.gz" }
base = { recipe = "base", stage = "train" }

[params]
lr = 0.001
model = { depth = 4, sizes = [8, [16, 0.5]], kind = "mlp", bias = true }

[hardware]
device = "cuda"
threads = 2
cpu = "x86-64-v3"
gpu = "NVIDIA H100*"
gpus = 1
gpu-memory = "40 GiB"
processes = 1

[determinism]
seed = 42
level = "functional"
tf32 = false
allow = ["scatter_add"]

[stages.train]
run = ["python", "train.py", "{data.digits}", "{data.base}", "{params.model.sizes}", "{{}}"]
metrics = "metrics.json"
code = ["nets/*.py"]
data = ["files"]
params = ["lr"]
env = { THREADS = "{threads}", OUT = "{out}" }

[stages.evaluate]
run = ["python", "evaluate.py", "{stages.train}/model.safetensors"]
stages = ["train"]

[verify.metrics]
accuracy = { abs = 0.002, rel = 1 }
""".replace("SHA256", "ab" * 32)

DOCUMENT: dict[str, Any] = tomllib.loads(FULL)

quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def read(data: bytes) -> Recipe | None:
    """The recipe, or None where it is refused as it should be."""
    try:
        recipe = parse_recipe(data, PATH)
    except InvalidInputError as error:
        check_message(error, rf"{re.escape(str(PATH))}:[1-9][0-9]*: ")
        return None
    check_usable(recipe)
    return recipe


def check_message(error: ModelbuildError, start: str) -> None:
    assert re.match(start, str(error))
    assert {"wanted", "found"} <= {label for label, _ in error.facts}
    assert str(error).replace("\n", "").isprintable()


def check_usable(recipe: Recipe) -> None:
    """What comes after parsing may rely on this."""
    canonical_bytes(dict(recipe.params))
    values = {f"params.{name}": render_param(value) for name, value in recipe.params.items()}
    values |= {f"data.{name}": name for name in recipe.data}
    values |= {f"stages.{name}": name for name in recipe.stages}
    values |= {"out": "/build/out", "seed": "7", "threads": "2"}
    done: set[str] = set()
    for stage in recipe.stages.values():
        for used in (stage.data, stage.params, stage.stages):
            assert list(used) == sorted(set(used))
        named = {
            f"{kind}.{n}" for kind in ("data", "params", "stages") for n in vars_of(stage)[kind]
        }
        for argument in (*stage.run, *stage.env.values()):
            expand(argument, values)
            assert set(references(argument)) <= named | {"out", "seed", "threads"}
        assert set(stage.stages) <= done
        done.add(stage.name)


def vars_of(stage: Any) -> dict[str, tuple[str, ...]]:
    return {"data": stage.data, "params": stage.params, "stages": stage.stages}


class Literal(str):
    """TOML as it is written."""

    __slots__ = ()


def toml(value: object) -> str:
    """A value in TOML, tables inline."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{quoted(key)} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, Literal):
        return value
    return quoted(value) if isinstance(value, str) else str(value).lower()


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def document_bytes(document: dict[str, Any]) -> bytes:
    return "".join(f"{quoted(key)} = {toml(item)}\n" for key, item in document.items()).encode()


def keys_in(document: Any, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in document.items():
        yield (*prefix, key)
        if isinstance(value, dict):
            yield from keys_in(value, (*prefix, key))


LITERALS = ["0x" + "f" * 5000, "9" * 5000, "1e999", "-nan", "2026-01-31T07:00:00Z", "07:00:00"]
KEYS = sorted({key for path in keys_in(DOCUMENT) for key in path})
words = st.sampled_from(KEYS) | st.text(max_size=8)
strings = words | st.sampled_from(
    ["{out}", "{data.digits}", "{params.lr}", "{stages.train}", "{", "}}", "../..", "/", "a\\b"]
)
scalars = (
    strings
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from([Literal(text) for text in LITERALS])
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=4),
    max_leaves=12,
)


def test_the_full_recipe_is_valid() -> None:
    assert read(FULL.encode()) == read(document_bytes(DOCUMENT))
    assert read(FULL.encode()) is not None


@quick
@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data: bytes) -> None:
    assert read(data) is None


@quick
@given(st.dictionaries(words, values, max_size=8))
def test_random_documents_are_refused_or_read(document: dict[str, Any]) -> None:
    read(document_bytes(document))


@quick
@given(st.dictionaries(words, values, max_size=8))
def test_random_documents_with_a_schema_are_refused_or_read(document: dict[str, Any]) -> None:
    read(document_bytes({**document, "schema": 1}))


@quick
@given(st.data())
def test_mutated_recipes_are_refused_or_read(data: st.DataObject) -> None:
    document = copy.deepcopy(DOCUMENT)
    for _ in range(data.draw(st.integers(1, 3))):
        paths = sorted(keys_in(document))
        *parents, key = data.draw(st.sampled_from(paths))
        table = document
        for parent in parents:
            table = table[parent]
        match data.draw(st.sampled_from(["drop", "rename", "retype", "move"])):
            case "drop":
                del table[key]
            case "rename":
                table[data.draw(words)] = table.pop(key)
            case "retype":
                table[key] = data.draw(values)
            case "move":
                document[data.draw(words)] = table.pop(key)
        if not document:
            break
    read(document_bytes(document))


@quick
@given(st.data())
def test_recipes_with_damaged_text_are_refused_or_read(data: st.DataObject) -> None:
    text = FULL
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = start + data.draw(st.integers(0, 12))
        damage = st.sampled_from(list("[]{}\"'#=.,\n\\*")) | st.text(max_size=4)
        text = text[:start] + data.draw(damage) + text[end:]
    read(text.encode())


@quick
@given(st.text(alphabet="ab[]{}\"'#=.,\n\\ -é", max_size=80))
def test_finding_lines_never_fails(text: str) -> None:
    lines = key_lines(text)
    assert all(1 <= line <= text.count("\n") + 1 for line in lines.values())


@quick
@given(st.dictionaries(words, values, min_size=1, max_size=6))
def test_lines_are_found_for_the_keys_that_the_parser_finds(document: dict[str, Any]) -> None:
    plain = re.compile(r"[A-Za-z0-9 _-]*")
    lines = key_lines(document_bytes(document).decode())
    number = {key: index for index, key in enumerate(document, 1)}
    for path in keys_in(document):
        if all(plain.fullmatch(key) for key in path):
            assert lines[".".join(path)] == number[path[0]]


@quick
@given(
    st.text(alphabet="ab0-_.[], <>=!~;@", max_size=12)
    | st.from_regex(r"[ab][ab1._-]{0,3}(\[a(,b)?\])?( ?(==|>=|<|!=) ?[0-9](\.[0-9a]){0,2})?")
)
def test_a_requirement_taken_without_packaging_is_valid(text: str) -> None:
    try:
        Requirement(text)
    except InvalidRequirement:
        assert not is_common_requirement(text)


@quick
@given(st.lists(words), st.text(max_size=6) | values.map(toml))
def test_settings_are_applied_or_refused(names: list[str], value: str) -> None:
    recipe = parse_recipe(FULL.encode(), PATH)
    known = [f"params.{name}" for name in recipe.params] + ["seed", "hardware.threads"]
    for name in (*known, ".".join(names)):
        try:
            found = override(recipe, [f"{name}={value}"])
        except UsageError as error:
            check_message(error, "--set ")
        else:
            check_usable(found)
