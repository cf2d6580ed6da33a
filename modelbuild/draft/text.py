"""A drafted recipe as text that a person goes on editing."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from modelbuild.draft.drafted import Draft, StageDraft
from modelbuild.draft.packages import Packages
from modelbuild.spec.toml_text import toml_key, toml_string, toml_value

_WIDTH = 92


def recipe_text(name: str, draft: Draft, packages: Packages) -> str:
    parts = (
        _head(name, draft),
        _environment(packages),
        _code(draft),
        *_data(draft),
        _params(draft),
        _hardware(draft),
        *map(_stage, draft.stages),
    )
    return "\n".join(line for part in parts if part for line in (*part, ""))[:-1] + "\n"


def _comment(text: str, indent: str = "# ") -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _head(name: str, draft: Draft) -> list[str]:
    return [
        f"# How {draft.script.path} becomes a model that anyone can build again, bit for bit.",
        "#",
        "#   modelbuild build               locks what this names, and builds what is not built",
        "#   modelbuild verify --rebuild    builds it again, and compares",
        "",
        "schema = 1",
        "",
        "[model]",
        f"name = {toml_string(name)}",
        f"description = {toml_string(draft.script.description)}",
    ]


def _environment(packages: Packages) -> list[str]:
    lines = ["[environment]", f"python = {toml_string(packages.python)}"]
    lines += _comment(packages.comment)
    if packages.key == "packages":
        return lines + _list("packages", packages.values)
    return [*lines, f"{packages.key} = {toml_string(packages.values[0])}"]


def _code(draft: Draft) -> list[str]:
    return [
        "[code]",
        *_comment("All that a stage sees of this folder: files and globs, relative to this file."),
        *_list("include", draft.include),
    ]


def _data(draft: Draft) -> Iterator[list[str]]:
    first = True
    for name in (*draft.data, *draft.outside):
        lines = [f"[data.{toml_key(name)}]", *_place(draft, name)]
        if first:
            about = (
                "What it reads, pinned by content. Besides path there are url, package (a file in "
                "a wheel), recipe (another recipe's output) and location (a folder that is "
                "elsewhere on each machine)."
            )
            lines = [*_comment(about), *lines]
        first = False
        yield lines


def _place(draft: Draft, name: str) -> list[str]:
    if name in draft.data:
        return [f"path = {toml_string(draft.data[name])}"]
    file = draft.outside[name]
    return [f"location = {toml_string(name)}", *([f"file = {toml_string(file)}"] if file else [])]


def _params(draft: Draft) -> list[str]:
    if not draft.params:
        return []
    name, value = next(iter(draft.params.items()))
    return [
        *_comment(f"To try another value: modelbuild build --set params.{name}={value}"),
        "[params]",
        *(f"{_dotted(key)} = {toml_value(each)}" for key, each in draft.params.items()),
    ]


def _dotted(name: str) -> str:
    return ".".join(map(toml_key, name.split(".")))


def _hardware(draft: Draft) -> list[str]:
    return [
        "[hardware]",
        f"device = {toml_string(draft.device)}",
        *_comment("How many threads add up decides the last bits, so it belongs to the recipe."),
        f"threads = {draft.threads}",
        "",
        "[determinism]",
        *_comment("Python, NumPy and torch start from it; scripts get it as {seed}."),
        f"seed = {draft.seed}",
    ]


def _stage(stage: StageDraft) -> list[str]:
    lines = [f"[stages.{toml_key(stage.name)}]"]
    if stage.notes:
        lines += ["# To be mended before this builds:"]
        for note in stage.notes:
            first, *rest = _comment(note, "#   ")
            lines += [first.replace("#   ", "# - ", 1), *rest]
    else:
        lines += _comment("{out} is its output folder, the only place to which it can write.")
    lines += _comment(stage.about_run.strip()) + _run(stage)
    if stage.search:
        about = "Python searches only the folder of the program itself for modules."
        lines += [
            *_comment(about),
            f"env = {{ PYTHONPATH = {toml_string(':'.join(stage.search))} }}",
        ]
    if stage.code:
        lines += _list("code", stage.code)
    if stage.listed:
        lines += [f"data = {toml_value(stage.listed)}"]
    if stage.metrics:
        lines += [f"metrics = {toml_string(stage.metrics)}"]
    else:
        lines += _comment("A JSON file of numbers in {out}, which model.lock then shows:")
        lines += ['# metrics = "metrics.json"']
    return lines


def _run(stage: StageDraft) -> list[str]:
    arguments = (*stage.command, *stage.arguments)
    line = f"run = {toml_value([word for argument in arguments for word in argument])}"
    if len(line) <= _WIDTH and len(arguments) <= 3:
        return [line]
    shown = (", ".join(map(toml_string, argument)) for argument in arguments)
    return ["run = [", *(f"  {each}," for each in shown), "]"]


def _list(key: str, values: Sequence[str]) -> list[str]:
    line = f"{key} = {toml_value(values)}"
    if len(line) <= 70:
        return [line]
    return [f"{key} = [", *(f"  {toml_string(value)}," for value in values), "]"]
