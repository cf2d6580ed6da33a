"""The documents agree with the code: formats, keys, variables, commands and links."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from itertools import product
from pathlib import Path, PurePosixPath

import pytest
import tomlkit

from modelbuild.cli.main import COMMANDS
from modelbuild.errors import InvalidInputError
from modelbuild.sandbox.namespaces import BWRAP_PROFILE, INSTALL
from modelbuild.spec.lock_file import parse_lock, render_lock
from modelbuild.spec.recipe import Determinism, Device, Hardware
from modelbuild.spec.recipe_file import parse_recipe
from modelbuild.spec.variables import stage_variables

ROOT = Path(__file__).parent.parent
DOCS = sorted((ROOT / "docs").glob("*.md"))
READMES = [ROOT / "benchmarks" / "README.md", *sorted(ROOT.glob("recipes/*/README.md"))]
PAGES = [*DOCS, ROOT / "README.md", ROOT / "CHANGELOG.md", *READMES]

# Where a made-up key is put to hear which keys the parser knows there, by heading of recipe.md.
PLACES = {
    "Top level": "",
    "[model]": "model",
    "[environment]": "environment",
    "[code]": "code",
    "[data.NAME]": "data.some",
    "[hardware]": "hardware",
    "[determinism]": "determinism",
    "[stages.NAME]": "stages.some",
    "[verify.metrics.NAME]": "verify.metrics.some",
    "[verify.predictions.STAGE]": "verify.predictions.other",
}

CPUS = ("x86-64-v2", "x86-64-v3", "x86-64-v4", "native")
NAMED_BY_USERS = tuple(f"MODELBUILD_{kind}_" for kind in ("DATA", "LOCATION", "PARAM", "STAGE"))

COMPLETE = {
    "schema": 1,
    "model": {"name": "documented"},
    "environment": {"python": "3.11", "packages": []},
    "stages": {"some": {"run": ["python", "some.py"]}},
}


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def below(start: str, text: str, end: str) -> str:
    return text.partition(start)[2].partition(end)[0]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def toml_blocks() -> Iterator[tuple[str, str]]:
    for path in PAGES:
        for text in blocks(path.read_text(), "toml"):
            yield path.name, text


def recipe_path() -> PurePosixPath:
    return PurePosixPath("documented/recipe.toml")


def parse(recipe: dict) -> None:
    parse_recipe(tomlkit.dumps(recipe).encode(), recipe_path())


def is_recipe(text: str) -> bool:
    return tomllib.loads(text).get("schema") == 1 and "model" in tomllib.loads(text)


def is_lock(text: str) -> bool:
    return "environments" in tomllib.loads(text)


def is_fragment(text: str) -> bool:
    return not (is_recipe(text) or is_lock(text) or text.startswith("# config.toml"))


# -- blocks ---------------------------------------------------------------------------------------


def test_every_recipe_in_the_documents_parses():
    recipes = [text for _, text in toml_blocks() if is_recipe(text)]
    assert recipes
    for text in recipes:
        parse_recipe(text.encode(), recipe_path())


def test_every_part_of_a_recipe_in_the_documents_parses_when_it_is_completed():
    fragments = [(name, text) for name, text in toml_blocks() if is_fragment(text)]
    assert len(fragments) >= 8
    for name, text in fragments:
        try:
            parse({**COMPLETE, **tomllib.loads(text)})
        except InvalidInputError as error:
            pytest.fail(f"{name}: {error}\n{text}")


def test_the_lock_in_the_documents_is_as_the_tool_writes_it():
    locks = [text for _, text in toml_blocks() if is_lock(text)]
    assert locks
    for text in locks:
        assert render_lock(parse_lock(text.encode())).decode() == text


# -- keys -----------------------------------------------------------------------------------------


def known_keys(place: str) -> set[str]:
    """What the parser says it knows, when it is given a key that it does not know."""
    recipe: dict = {**COMPLETE, "stages": {"other": COMPLETE["stages"]["some"]}}
    table = recipe
    for part in filter(None, place.split(".")):
        table[part] = dict(table.get(part, {}))
        table = table[part]
    table["no-such-key"] = 1
    with pytest.raises(InvalidInputError, match="no-such-key") as raised:
        parse(recipe)
    return set(dict(raised.value.facts)["wanted"].split(", "))


def documented_keys(heading: str) -> set[str]:
    """The first column of the tables of keys below a heading of recipe.md."""
    sections = re.split(r"^## ", page("recipe.md"), flags=re.MULTILINE)
    section = next(s for s in sections if s.splitlines()[0].replace("`", "") == heading)
    tables = re.findall(r"^\| key \|.*\n\|[-|]+\n((?:\|.*\n)+)", section, re.MULTILINE)
    return {key for table in tables for key in re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)}


@pytest.mark.parametrize("heading", PLACES)
def test_the_keys_of_a_table_are_the_ones_that_the_parser_knows(heading):
    assert documented_keys(heading) == known_keys(PLACES[heading])


def test_every_table_of_keys_in_the_recipe_page_is_compared():
    sections = re.split(r"^## ", page("recipe.md"), flags=re.MULTILINE)
    with_keys = {s.splitlines()[0].replace("`", "") for s in sections if "\n| key |" in s}
    assert with_keys == set(PLACES)


# -- variables ------------------------------------------------------------------------------------


def names_of_ours(text: str) -> set[str]:
    """Such as MODELBUILD_STORE; what comes before a name of the user's ends in `_`."""
    return set(re.findall(r"\bMODELBUILD_[A-Z_]+", text))


def test_every_variable_of_ours_in_the_code_is_documented():
    documented = set().union(*(names_of_ours(path.read_text()) for path in DOCS))
    assert documented.issuperset(NAMED_BY_USERS)
    for path in sorted((ROOT / "modelbuild").rglob("*.py")):
        for name in names_of_ours(path.read_text()) - documented:
            assert name.startswith(NAMED_BY_USERS), f"{name} in {path}"


def test_every_variable_of_ours_in_the_documents_is_in_the_code():
    code = set().union(*(names_of_ours(p.read_text()) for p in (ROOT / "modelbuild").rglob("*.py")))
    for path in PAGES:
        for name in names_of_ours(path.read_text()) - code:
            assert name.startswith(NAMED_BY_USERS), f"{name} in {path}"


def test_every_variable_that_a_stage_starts_with_is_documented():
    section = below("### Environment variables", page("determinism.md"), "\n### ")
    documented = set(re.findall(r"`([A-Z_0-9]+)`", section))
    started_with: set[str] = set()
    for cpu, device in product(CPUS, Device):
        hardware = Hardware(device=device, cpu=cpu)
        started_with |= stage_variables(hardware, Determinism(tf32="false")).keys()
    assert started_with <= documented


def table(text: str) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of the one table in a text."""
    header, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    return header, rows


def literals(cell: str) -> list[str]:
    return re.findall(r"`([^`]*)`", cell)


def test_the_documented_values_of_variables_are_the_ones_that_are_set():
    section = below("### Environment variables", page("determinism.md"), "\nBy `")
    variables = stage_variables(Hardware(threads=3), Determinism())
    _, rows = table(section)
    assert len(rows) > 15
    for names, cell in ((literals(names), cell) for names, cell in rows):
        if cell == "from the recipe":
            continue
        values = literals(cell)
        for name, value in zip(names, values * (len(names) // len(values)), strict=True):
            if cell.startswith("folders below"):
                assert variables[name].startswith(f"{value}/")
            else:
                assert variables[name] == ("3" if value == "threads" else value), name


@pytest.mark.parametrize("device", Device)
def test_the_documented_variables_of_a_device_are_the_ones_that_are_set(device):
    section = below("By `[hardware] device`:", page("determinism.md"), "\n### ")
    variables = stage_variables(Hardware(device=device), Determinism(tf32="false"))
    header, rows = table(section)
    for row in rows:
        cell = row[header.index(f"`{device.value}`")]
        value = {"empty": "", "-": None}[cell] if cell in ("empty", "-") else literals(cell)[0]
        for name in literals(row[0]):
            assert variables.get(name) == value, name


@pytest.mark.parametrize("cpu", CPUS)
def test_the_documented_caps_on_instructions_are_the_ones_that_are_set(cpu):
    section = below("By `[hardware] cpu`:", page("determinism.md"), "\nBy `")
    header, rows = table(section.replace("`", ""))
    in_words = ("NPY_DISABLE_CPU_FEATURES", "GLIBC_TUNABLES")
    variables = stage_variables(Hardware(cpu=cpu), Determinism())
    for row in rows:
        cell = row[header.index(cpu)]
        if row[0] in in_words:
            assert (cell != "-") == (row[0] in variables)
        else:
            assert variables.get(row[0], "-") == cell


# -- commands and links ---------------------------------------------------------------------------


def test_the_sandbox_page_has_the_commands_that_doctor_names():
    text = page("sandbox.md")
    assert BWRAP_PROFILE.format(bwrap="/usr/bin/bwrap") in text
    for command in INSTALL.removeprefix("Install bubblewrap: ").split(", "):
        assert command.removeprefix("or ") in text
    source = (ROOT / "modelbuild/sandbox/namespaces.py").read_text()
    for option in re.findall(r"--security-opt \w+=\w+", source):
        assert option in text
    for setting in re.findall(r'"(kernel\.\w+|user\.\w+)"', source):
        assert f"sudo sysctl -w {setting}=" in text


def test_only_commands_that_exist_are_named():
    for path in PAGES:
        text = path.read_text()
        named = set(re.findall(r"(?:`|^|\$ |&& )modelbuild ([a-z]+)\b", text, re.MULTILINE))
        assert named <= {*COMMANDS, "is"}, path


def links(path: Path) -> list[str]:
    text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"\]\(([^)\s]+)\)", text)


def anchors(path: Path) -> set[str]:
    """Of the headings, as hosting sites make them."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_relative_link_leads_somewhere(path):
    for link in links(path):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link
