"""The lock as bytes: canonical, read again, and safe to merge."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelbuild.errors import InvalidInputError, NotReproducibleError
from modelbuild.spec.digest import Digest
from modelbuild.spec.lock import (
    Claim,
    Lock,
    LockedData,
    LockedEnvironment,
    LockedFile,
    LockedRecipe,
    LockedSeeds,
    LockedStage,
    LockedWheel,
    Upstream,
)
from modelbuild.spec.lock_conflict import agreed_lock
from modelbuild.spec.lock_file import open_lock, parse_lock, render_lock
from modelbuild.spec.numeric_class import NumericClass
from modelbuild.spec.probes import Probes
from modelbuild.spec.recipe import Level
from modelbuild.spec.seed_statistics import SeedStatistics

GOLDEN = Path(__file__).parent / "golden" / "lock-1.lock"
RESTORE = "Restore model.lock as it was last committed, then run: modelbuild lock"


def named(facts: dict[str, str]) -> dict[str, dict[str, str]]:
    """A class below the name that its facts give."""
    return {NumericClass(facts).key: facts}


FACTS = {"cpu": "AMD EPYC 7B13", "kernel": "6.1", "libm": "b3:9f86d08"}
CLASS = NumericClass(FACTS).key
OTHERS = {key: facts for n in range(20) for key, facts in named({"cpu": f"CPU {n}"}).items()}
"""Further classes, some of which sort before CLASS and some after it."""
FIRST, SECOND, *_, LAST = sorted(OTHERS)
assert FIRST < SECOND < CLASS < LAST


def digest(text: str) -> Digest:
    return Digest.of(text.encode())


def a_wheel(name: str, version: str, licence: str = "BSD-3-Clause") -> LockedWheel:
    return LockedWheel(
        name=name,
        version=version,
        filename=f"{name}-{version}-cp311-cp311-manylinux_2_28_x86_64.whl",
        sha256=digest(f"{name} {version}").hex,
        bytes=1000 * len(name),
        licence=licence,
    )


def an_environment(*wheels: LockedWheel) -> LockedEnvironment:
    return LockedEnvironment(
        python="3.11.7",
        platform="x86_64-manylinux_2_28",
        backend="cpu",
        wheels=wheels,
        interpreters=tuple(sorted([digest("one build"), digest("another build")])),
    )


def a_recipe(name: str, environment: LockedEnvironment, **stages: LockedStage) -> LockedRecipe:
    return LockedRecipe(
        name=name,
        path=PurePosixPath(f"recipes/{name}/recipe.toml"),
        environment=environment.key,
        requires=("numpy>=2", "torch==2.13.0"),
        resolver="uv",
        runtime="1",
        code={"train.py": LockedFile(digest=digest("train"), lines=88)},
        data={},
        params={"lr": 0.001},
        seed=42,
        hardware={"device": "cpu", "threads": 2},
        stages=stages,
    )


def some_seeds(derivation: Digest, *, seeds: int = 5, mean: float = 0.96) -> LockedSeeds:
    return LockedSeeds(
        derivation=derivation,
        numeric_class=CLASS,
        statistics=SeedStatistics(
            seeds=seeds,
            mean=mean,
            deviation=0.0071,
            low=0.9524,
            high=0.97,
            least=0.95,
            most=0.97,
        ),
    )


def an_example() -> Lock:
    """One of everything: the golden file."""
    environment = an_environment(
        a_wheel("numpy", "2.3.1"), a_wheel("torch", "2.13.0+cpu", 'Apache-2.0 AND "LICENSE.txt"')
    )
    claim = Claim(
        numeric_class=CLASS,
        derivation=digest("derivation of train"),
        output=digest("output of train"),
        bytes=91234,
        parameters=18_218,
        metrics={"loss": 1e-05, "accuracy": 0.97, "epochs": 3, "worst": float("-inf")},
    )
    evaluate = LockedStage(
        derivation=digest("evaluate"),
        run=("python", "evaluate.py", "--model", "{stages.train}/model.pt"),
        upstream={
            "stages.train": Upstream(
                stage="digits:train", derivation=digest("derivation of train").short
            )
        },
        code=("conf/base.yaml", "evaluate.py"),
    )
    train = LockedStage(
        derivation=claim.derivation,
        run=("python", "train.py"),
        reads=("data.digits", "params.lr"),
        claims=(claim,),
        seeds={
            "accuracy": replace(
                some_seeds(claim.derivation, mean=0.9612), values=(0.96, 0.95, 0.97, 0.9626, 0.9634)
            ),
            "loss of all": some_seeds(digest("older derivation"), mean=1.5e-05),
        },
    )
    digits = replace(
        a_recipe("digits", environment, train=train, evaluate=evaluate),
        exclude_newer="2026-01-31",
        level=Level.FUNCTIONAL,
        allow=("cumsum_cuda_kernel", "index_add_cuda_"),
        tf32="false",
        code={
            "conf/base.yaml": LockedFile(digest=digest("yaml"), lines=3),
            "evaluate.py": LockedFile(digest=digest("evaluate"), lines=40),
            "my tool.sh": LockedFile(digest=digest("tool"), lines=2, executable=True),
            "train.py": LockedFile(digest=digest("train"), lines=88),
        },
        data={
            "digits": LockedData(
                digest=digest("digits"),
                file="digits.csv.gz",
                files=1,
                bytes=57_523,
                rows=1797,
                columns=("pixel", 'say "digit"'),
                declared="package scikit-learn: sklearn/datasets/data/digits.csv.gz",
                resolved="scikit-learn 1.7.0: sklearn/datasets/data/digits.csv.gz",
            ),
            "images": LockedData(digest=digest("images"), file=None, files=1000, bytes=10**9),
        },
        params={"lr": 0.001, "optimiser.betas": (0.9, 0.999), "name": "a\nb", "amp": False},
    )
    return Lock(
        environments={environment.key: environment},
        recipes={"digits": digits, "tabular": a_recipe("tabular", environment)},
        classes={CLASS: FACTS},
        probes={
            CLASS: {
                f"{environment.key}-x86-64-v3-2": Probes(
                    settings="0123456789ab",
                    digest="89c6711e1a1b",
                    operations={"libm": "3216", "numpy.exp": "f1c7"},
                    threads={"openblas": 2, "processors": 2},
                )
            }
        },
    )


def test_the_golden_lock_stays_readable() -> None:
    assert parse_lock(GOLDEN.read_bytes()) == an_example()


def test_the_golden_lock_is_what_is_written() -> None:
    assert render_lock(an_example()).decode() == GOLDEN.read_text()


def test_an_empty_lock_is_read_again() -> None:
    assert parse_lock(render_lock(Lock())) == Lock()


def test_values_that_are_not_those_of_their_statistics_do_not_parse() -> None:
    lines = render_lock(an_example()).decode()
    edited = lines.replace("values = [0.96, ", "values = [0.99, ")
    assert edited != lines
    with pytest.raises(InvalidInputError) as raised:
        parse_lock(edited.encode())
    assert "accuracy.values: not those that the rest of the line is of: edited" in str(raised.value)


names = st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
file_names = texts.filter(lambda text: text not in ("", ".", "..") and "/" not in text)
paths = st.lists(file_names, min_size=1, max_size=3).map("/".join)
counts = st.integers(0, 2**50)
digests = st.binary(max_size=4).map(Digest.of)
numbers = st.floats(allow_nan=False) | st.integers(-(2**63), 2**63)
params = st.recursive(
    texts | numbers | st.booleans(), lambda inner: st.lists(inner, max_size=3).map(tuple)
)
wheels = st.builds(
    LockedWheel,
    name=names,
    version=texts,
    filename=file_names,
    sha256=digests.map(lambda each: each.hex),
    bytes=counts,
    licence=texts,
)
environments = st.builds(
    LockedEnvironment,
    python=texts,
    platform=texts,
    backend=texts,
    wheels=st.lists(wheels, max_size=3, unique_by=lambda wheel: wheel.name).map(
        lambda found: tuple(sorted(found, key=lambda wheel: wheel.name))
    ),
    interpreters=st.sets(digests, max_size=2).map(lambda found: tuple(sorted(found))),
)
data_tables = st.builds(
    LockedData,
    digest=digests,
    file=st.none() | file_names,
    files=counts,
    bytes=counts,
    declared=texts,
    resolved=st.none() | texts,
    rows=st.none() | counts,
    columns=st.none() | st.lists(texts, max_size=3).map(tuple),
)


def claims(classes: list[str]) -> st.SearchStrategy[Claim]:
    return st.builds(
        Claim,
        numeric_class=st.sampled_from(classes),
        derivation=digests,
        output=digests,
        bytes=counts,
        parameters=st.none() | counts,
        metrics=st.dictionaries(texts, numbers, max_size=2),
    )


def seeds_on(classes: list[str]) -> st.SearchStrategy[LockedSeeds]:
    return st.builds(
        LockedSeeds,
        derivation=digests,
        numeric_class=st.sampled_from(classes),
        statistics=st.builds(
            SeedStatistics,
            seeds=st.integers(2, 1000),
            mean=numbers,
            deviation=numbers,
            low=numbers,
            high=numbers,
            least=numbers,
            most=numbers,
        ),
    )


@st.composite
def recipes(
    draw: st.DrawFn, name: str, environments: list[str], classes: list[str]
) -> LockedRecipe:
    files = st.builds(LockedFile, digest=digests, lines=counts, executable=st.booleans())
    code = draw(st.dictionaries(paths, files, max_size=3))
    some_code = st.sets(st.sampled_from(sorted(code) or [""]), max_size=3)
    stages = st.builds(
        LockedStage,
        derivation=digests,
        code=st.none() | some_code.map(lambda found: tuple(sorted(found & code.keys()))),
        claims=st.lists(
            claims(classes), max_size=3, unique_by=lambda claim: claim.numeric_class
        ).map(lambda found: tuple(sorted(found, key=lambda claim: claim.numeric_class))),
        seeds=st.dictionaries(texts, seeds_on(classes), max_size=2),
    )
    return LockedRecipe(
        name=name,
        path=PurePosixPath(name) / "recipe.toml",
        environment=draw(st.sampled_from(environments)),
        requires=tuple(sorted(draw(st.sets(texts, max_size=3)))),
        resolver=draw(texts),
        runtime=draw(texts),
        code=code,
        data=draw(st.dictionaries(names, data_tables, max_size=2)),
        params=draw(st.dictionaries(texts, params, max_size=3)),
        seed=draw(st.integers(-5, 2**40)),
        hardware=draw(st.dictionaries(names, texts | counts, max_size=2)),
        stages=draw(st.dictionaries(names, stages, max_size=2)),
        exclude_newer=draw(st.none() | texts),
        tf32=draw(st.sampled_from(["script", "false"])),
    )


@st.composite
def locks(draw: st.DrawFn) -> Lock:
    found = {each.key: each for each in draw(st.lists(environments, min_size=1, max_size=2))}
    recipe_names = draw(st.sets(names, max_size=3))
    facts = st.dictionaries(texts, texts, min_size=1, max_size=2)
    classes = {NumericClass(each).key: each for each in draw(st.lists(facts, min_size=1))}
    return Lock(
        environments=found,
        recipes={
            name: draw(recipes(name, sorted(found), sorted(classes)))
            for name in sorted(recipe_names)
        },
        classes=classes,
    )


@settings(max_examples=60, deadline=None)
@given(locks())
def test_what_is_written_is_read_again(lock: Lock) -> None:
    data = render_lock(lock)
    for found in (parse_lock(data), open_lock(data)):
        assert found == lock
        assert render_lock(found) == data
        for key, environment in lock.environments.items():
            assert found.environments[key].interpreters == environment.interpreters


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_damage_is_an_error_of_ours_or_harmless(data: st.DataObject) -> None:
    good = GOLDEN.read_bytes()
    at = data.draw(st.integers(0, len(good)))
    end = data.draw(st.integers(at, min(len(good), at + 40)))
    damaged = good[:at] + data.draw(st.binary(max_size=8)) + good[end:]
    try:
        lock = parse_lock(damaged)
    except InvalidInputError:
        pass
    else:
        assert parse_lock(render_lock(lock)) == lock
        assert open_lock(damaged) == lock


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_lines_in_another_order_are_read_part_by_part_as_in_the_whole(data: st.DataObject) -> None:
    lines = GOLDEN.read_text().splitlines(keepends=True)
    first = data.draw(st.integers(0, len(lines) - 1))
    line = data.draw(st.sampled_from(["", "  ", "\t", "\n", "\r"])) + lines.pop(first)
    lines.insert(data.draw(st.integers(0, len(lines))), line)
    text = "".join(lines).encode()
    try:
        whole = parse_lock(text)
    except InvalidInputError:
        return
    assert open_lock(text) == whole


def test_a_string_that_holds_a_table_is_a_string() -> None:
    text = GOLDEN.read_text().replace(
        'backend = "cpu"', 'backend = """cpu\n\n[recipes.other]\nseed = 1\n"""'
    )
    assert sorted(open_lock(text.encode()).recipes) == ["digits", "tabular"]


def failure(data: bytes | str) -> str:
    with pytest.raises(InvalidInputError) as caught:
        parse_lock(data.encode() if isinstance(data, str) else data)
    return str(caught.value)


def edited(before: str, after: str) -> str:
    text = GOLDEN.read_text()
    assert before in text
    return text.replace(before, after, 1)


def line_of(text: str, start: str) -> int:
    return next(i for i, line in enumerate(text.split("\n"), start=1) if line.startswith(start))


def test_conflict_markers_are_told_before_anything_else() -> None:
    text = edited("seed = 42", "<<<<<<< HEAD\nseed = 42\n=======\nseed = 43\n>>>>>>> b\xff")
    assert failure(text.encode("latin-1")) == (
        f"model.lock:{line_of(text, '<<<<<<<')}: a merge conflict is not resolved\n"
        "  found: <<<<<<< HEAD\n"
        "Run: modelbuild lock"
    )


def test_a_conflict_marker_that_was_left_over_is_told() -> None:
    text = edited("seed = 42", "seed = 42\n>>>>>>> theirs")
    assert "a merge conflict is not resolved\n  found: >>>>>>> theirs" in failure(text)


def test_signs_of_a_conflict_within_a_line_are_content() -> None:
    lock = Lock(classes=named({"cpu": "<<<<<<< ======= >>>>>>>"}))
    assert parse_lock(render_lock(lock)) == lock


def test_what_is_not_toml_is_told_with_its_line() -> None:
    text = edited('resolver = "uv"', 'resolver = "uv')
    assert failure(text) == (
        f"model.lock:{line_of(text, 'resolver')}: not TOML\n"
        f"  found: Illegal character '\\n'\n{RESTORE}"
    )


def test_a_part_that_is_not_toml_is_told_with_its_line_in_the_file() -> None:
    text = edited('resolver = "uv"', 'resolver = "uv').encode()
    with pytest.raises(InvalidInputError) as caught:
        _ = open_lock(text).recipes["digits"]
    assert str(caught.value) == failure(text)


def test_what_is_not_utf_8_is_told_with_its_line() -> None:
    data = GOLDEN.read_bytes().replace(b"AMD", b"AM\xff")
    line = line_of(GOLDEN.read_text(), "cpu = ")
    assert failure(data) == f"model.lock:{line}: not UTF-8\n  found: byte 0xff\n{RESTORE}"


def test_a_newer_schema_asks_for_an_update() -> None:
    assert failure(edited("schema = 1", "schema = 2\nnew = true")) == (
        "model.lock:2: written by another version of modelbuild\n"
        "  wanted: schema = 1\n"
        "  found:  schema = 2\n"
        "Update modelbuild."
    )


def test_a_lock_without_a_schema_is_refused() -> None:
    assert failure("") == f"model.lock: 'schema' is missing\n{RESTORE}"


def test_an_edited_environment_does_not_match_its_name() -> None:
    key = next(iter(an_example().environments))
    text = edited('version = "2.3.1"', 'version = "2.3.2"')
    other = an_environment(
        replace(a_wheel("numpy", "2.3.1"), version="2.3.2"), a_wheel("torch", "2.13.0+cpu")
    )
    assert failure(text) == (
        f"model.lock:4: environments.{key}: the environment's content does not match its name\n"
        f"  name:    {key}\n"
        f"  content: {other.key}\n{RESTORE}"
    )


def test_a_wrong_type_names_line_key_wanted_and_found() -> None:
    text = edited('resolver = "uv"', "resolver = ['uv']")
    assert failure(text) == (
        f"model.lock:{line_of(text, 'resolver')}: recipes.digits.resolver: not what belongs here\n"
        f'  wanted: a string\n  found:  ["uv"]\n{RESTORE}'
    )


def test_a_bad_digest_in_an_inline_table_is_told_with_its_line() -> None:
    text = edited(str(digest("yaml")), "b3:123")
    line = line_of(text, '"conf/base.yaml" =')
    assert failure(text) == (
        f"model.lock:{line}: "
        'recipes.digits.code."conf/base.yaml".digest: not what belongs here\n'
        f'  wanted: b3: and 64 hexadecimal digits\n  found:  "b3:123"\n{RESTORE}'
    )


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        ("seed = 42\n", "", "recipes.digits: 'seed' is missing"),
        ("seed = 42", "seed = 42\nsede = 1", "recipes.digits.sede: unknown key"),
        ("seed = 42", "seed = true", "wanted: an integer\n  found:  true"),
        ("lines = 88", "lines = -1", "wanted: an integer, not below 0\n  found:  -1"),
        ("executable = true", "executable = 1", "wanted: true or false\n  found:  1"),
        ('"evaluate.py" =', '"../evaluate.py" =', "wanted: a path without .., relative"),
        ('path = "recipes/', 'path = "/recipes/', "wanted: a path without .., relative"),
        ('file = "digits.csv.gz"', 'file = "../digits"', "wanted: the name of a file"),
        ("accuracy = 0.97", 'accuracy = "high"', 'wanted: a number\n  found:  "high"'),
        ("lr = 0.001", "lr = 2026-01-31", "found:  2026-01-31"),
        ("threads = 2", "threads = 2.5", "wanted: a string or an integer\n  found:  2.5"),
        ('"numpy>=2",\n', '"zlib",\n', "wanted: an array of strings, sorted, none twice"),
        ('"numpy>=2",\n', '"torch==2.13.0",\n', "wanted: an array of strings, sorted, none twice"),
        ('kernel = "6.1"', "kernel = 6.1", f"classes.{CLASS}.kernel: not what belongs here"),
        ("lr = 0.001", "", "digits.content: not the digest of this recipe's entries"),
        ("[recipes.digits.params]", "[recipes.digits.more]", "recipes.digits.more: unknown key"),
        ("schema = 1", "schema = 1\nmore = 1", "more: unknown key"),
    ],
)
def test_what_does_not_belong_is_refused(before: str, after: str, problem: str) -> None:
    assert problem in failure(edited(before, after))


def test_a_recipe_must_name_an_environment_that_is_there() -> None:
    key = next(iter(an_example().environments))
    text = edited(f'environment = "{key}"', 'environment = "000000000000"')
    assert failure(text) == (
        f"model.lock:{line_of(text, 'environment = ')}: recipes.digits.environment: "
        "names an environment that the lock does not have\n"
        f"  found: 000000000000\n{RESTORE}"
    )


def test_a_claim_must_name_a_class_that_is_there() -> None:
    text = GOLDEN.read_text().partition("\n[classes.")[0]
    assert failure(text) == (
        f"model.lock:{line_of(text, '[recipes.digits.stages.train.claims]')}: "
        "recipes.digits.stages.train.claims: names a numeric class that the lock does not have\n"
        f"  found: {CLASS}\n{RESTORE}"
    )


def test_a_stage_must_name_code_that_is_there() -> None:
    text = edited('  "conf/base.yaml",\n  "evaluate.py",', '  "conf/other.yaml",')
    assert "names a file that the recipe's code does not have\n  found: conf/other.yaml" in failure(
        text
    )


def test_two_recipes_of_one_file_are_refused() -> None:
    lock = an_example()
    tabular = replace(lock.recipes["tabular"], path=lock.recipes["digits"].path)
    text = render_lock(replace(lock, recipes={**lock.recipes, "tabular": tabular})).decode()
    assert failure(text) == (
        f"model.lock:{line_of(text, '[recipes.tabular]') + 1}: recipes.tabular.path: "
        "two recipes are locked for recipes/digits/recipe.toml\n"
        f"  found: digits, tabular\n{RESTORE}"
    )


def test_a_table_that_lost_its_entries_is_refused() -> None:
    text = GOLDEN.read_text()
    start = text.index("[recipes.tabular.code]\n") + len("[recipes.tabular.code]\n")
    without = text[:start] + text[text.index("\n\n", start) :]
    assert "recipes.tabular.code: a table without entries" in failure(without)


def test_a_class_without_facts_is_refused() -> None:
    text = GOLDEN.read_text()
    without = text[: text.index("cpu = ")]
    assert f"classes.{CLASS}: a table without entries" in failure(without)


def test_edited_facts_of_a_class_do_not_match_its_name() -> None:
    text = edited('kernel = "6.1"', 'kernel = "6.2"')
    assert failure(text) == (
        f"model.lock:{line_of(text, f'[classes.{CLASS}]') + 1}: "
        "the facts of the numeric class do not match its name\n"
        f"  wanted: {CLASS}\n"
        f"  found:  {NumericClass({**FACTS, 'kernel': '6.2'}).key}\n"
        "They were edited or merged wrongly. Take them from the commit that added them."
    )
    opened = open_lock(text.encode())
    assert opened.recipes["digits"] == an_example().recipes["digits"]
    with pytest.raises(InvalidInputError) as caught:
        _ = opened.classes[CLASS]
    assert str(caught.value) == failure(text)


def test_interpreters_that_two_branches_accepted_are_read_in_any_order() -> None:
    lines = GOLDEN.read_text().split("\n")
    start = lines.index("interpreters = [")
    lines[start + 1 : start + 3] = [lines[start + 2], lines[start + 1], lines[start + 2]]
    assert render_lock(parse_lock("\n".join(lines).encode())) == GOLDEN.read_bytes()


def test_characters_that_a_reviewer_does_not_see_are_written_as_escapes() -> None:
    hidden = named({"cpu": "a\u202eb\u200bc\x85\u2028\x7f\x00"})
    data = render_lock(Lock(classes=hidden))
    assert b'cpu = "a\\u202Eb\\u200Bc\\u0085\\u2028\\u007F\\u0000"' in data
    assert parse_lock(data).classes == hidden


def test_every_entry_has_a_line() -> None:
    for line in GOLDEN.read_text().splitlines():
        assert len(line) < 400
        assert line == line.rstrip()
        assert line.startswith(("  ", "]", "#", "[")) or not line or " = " in line


# Merging, by git itself.


def merged(ours: Lock, base: Lock, theirs: Lock, folder: Path, *options: str) -> bytes:
    for name, lock in (("ours", ours), ("base", base), ("theirs", theirs)):
        (folder / name).write_bytes(render_lock(lock))
    command = ["git", "merge-file", "-p", *options, "ours", "base", "theirs"]
    return subprocess.run(command, cwd=folder, capture_output=True, check=False).stdout


def with_claim(lock: Lock, numeric_class: str) -> Lock:
    digits = lock.recipes["digits"]
    train = digits.stages["train"]
    claim = replace(train.claims[0], numeric_class=numeric_class)
    found = tuple(sorted([*train.claims, claim], key=lambda claim: claim.numeric_class))
    stages = {**digits.stages, "train": replace(train, claims=found)}
    return replace(
        lock,
        recipes={**lock.recipes, "digits": replace(digits, stages=stages)},
        classes={**lock.classes, numeric_class: OTHERS[numeric_class]},
    )


def test_claims_made_on_two_branches_merge(tmp_path: Path) -> None:
    base = an_example()
    ours, theirs = with_claim(base, FIRST), with_claim(base, LAST)
    both = parse_lock(merged(ours, base, theirs, tmp_path))
    assert both == with_claim(ours, LAST)


def with_recipe(lock: Lock, name: str, version: str, seed: int) -> Lock:
    licence = 'Apache-2.0 AND "LICENSE.txt"'
    environment = an_environment(a_wheel("numpy", "2.3.1"), a_wheel("torch", version, licence))
    stage = LockedStage(derivation=digest(f"{name} {version} {seed}"), run=("python", "train.py"))
    recipe = replace(a_recipe(name, environment, train=stage), seed=seed)
    return replace(
        lock,
        environments={**lock.environments, environment.key: environment},
        recipes={**lock.recipes, name: recipe},
    )


def test_recipes_added_in_different_places_merge(tmp_path: Path) -> None:
    base = an_example()
    ours = with_recipe(base, "aaa", "2.13.0+cpu", 1)
    theirs = with_recipe(base, "zzz", "2.13.0+cpu", 2)
    assert parse_lock(merged(ours, base, theirs, tmp_path)) == with_recipe(
        ours, "zzz", "2.13.0+cpu", 2
    )


@pytest.mark.parametrize("options", [[], ["--union"]])
def test_two_changes_of_one_environment_do_not_pass_for_one(
    options: list[str], tmp_path: Path
) -> None:
    base = with_recipe(Lock(), "digits", "2.13.0", 1)
    ours = with_recipe(Lock(), "digits", "2.13.1", 1)
    theirs = with_recipe(Lock(), "digits", "2.14.0", 1)
    with pytest.raises(InvalidInputError):
        parse_lock(merged(ours, base, theirs, tmp_path, *options))


def test_two_results_of_one_class_do_not_pass_for_one(tmp_path: Path) -> None:
    base = an_example()
    ours = with_claim(base, LAST)
    digits = ours.recipes["digits"]
    train = digits.stages["train"]
    other = tuple(replace(claim, output=digest("other")) for claim in train.claims)
    stages = {**digits.stages, "train": replace(train, claims=other)}
    theirs = replace(ours, recipes={**ours.recipes, "digits": replace(digits, stages=stages)})
    data = merged(ours, base, theirs, tmp_path, "--union")
    with pytest.raises(InvalidInputError, match="not TOML"):
        parse_lock(data)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_merge_by_lines_is_right_or_noticed(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    seeds = st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), st.integers(1, 3))
    version = st.sampled_from(["2.13.0", "2.13.1"])

    def drawn() -> dict[str, Lock]:
        chosen = data.draw(seeds)
        return {
            name: with_recipe(Lock(), name, data.draw(version), s) for name, s in chosen.items()
        }

    def together(parts: dict[str, Lock]) -> Lock:
        environments = {k: v for part in parts.values() for k, v in part.environments.items()}
        found = {name: part.recipes[name] for name, part in parts.items()}
        return Lock(environments=environments, recipes=found)

    base, ours, theirs = drawn(), drawn(), drawn()
    folder = tmp_path_factory.mktemp("merge")
    text = merged(together(ours), together(base), together(theirs), folder)
    try:
        found = parse_lock(text)
    except InvalidInputError:
        return
    expected = {
        name: theirs.get(name) if base.get(name) == ours.get(name) else ours.get(name)
        for name in base | ours | theirs
    }
    right = together({name: part for name, part in expected.items() if part})
    assert found.recipes == right.recipes


def test_a_conflict_keeps_what_both_sides_agree_on(tmp_path: Path) -> None:
    base = with_recipe(Lock(), "digits", "2.13.0", 1)
    base = with_recipe(base, "tabular", "2.13.0", 1)
    ours = with_recipe(base, "digits", "2.13.1", 2)
    theirs = with_recipe(base, "digits", "2.14.0", 3)
    for options in ([], ["--diff3"]):
        found = agreed_lock(merged(ours, base, theirs, tmp_path, *options))
        assert found.recipes["tabular"] == base.recipes["tabular"]
        digits = found.recipes["digits"]
        expected = ours.recipes["digits"]
        assert digits == replace(expected, environment=digits.environment, requires=())
        both = {**ours.environments, **theirs.environments}
        # The package that both moved is to be resolved again.
        pins = an_environment(a_wheel("numpy", "2.3.1"))
        assert found.environments == {**both, digits.environment: pins}


def test_packages_that_one_side_moved_stay_as_that_side_has_them(tmp_path: Path) -> None:
    def with_versions(**versions: str) -> Lock:
        wheels = [a_wheel(name, version) for name, version in sorted(versions.items())]
        found = an_environment(*wheels)
        return Lock(environments={found.key: found}, recipes={"digits": a_recipe("digits", found)})

    base = with_versions(a="1", b="1", c="1", d="1")
    ours = with_versions(a="2", b="1", c="2", e="1")
    theirs = with_versions(a="1", b="2", c="3", d="1")
    data = merged(ours, base, theirs, tmp_path, "--diff3")
    found = agreed_lock(data)
    pins = found.environments[found.recipes["digits"].environment]
    assert [(wheel.name, wheel.version) for wheel in pins.wheels] == [
        ("a", "2"),
        ("b", "2"),
        ("e", "1"),
    ]


def test_a_conflict_between_claims_of_two_classes_keeps_both(tmp_path: Path) -> None:
    base = an_example()
    ours, theirs = with_claim(base, FIRST), with_claim(base, SECOND)
    data = merged(ours, base, theirs, tmp_path)
    assert "a merge conflict is not resolved" in failure(data)
    assert agreed_lock(data) == with_claim(ours, SECOND)


def test_claims_of_another_derivation_are_not_joined(tmp_path: Path) -> None:
    def with_derivation(lock: Lock, text: str) -> Lock:
        digits = lock.recipes["digits"]
        train = digits.stages["train"]
        claims = tuple(replace(claim, derivation=digest(text)) for claim in train.claims)
        moved = replace(train, derivation=digest(text), claims=claims)
        stages = {**digits.stages, "train": moved}
        return replace(lock, recipes={**lock.recipes, "digits": replace(digits, stages=stages)})

    base = an_example()
    ours = with_derivation(base, "ours")
    theirs = with_derivation(with_claim(base, LAST), "theirs")
    data = merged(ours, base, theirs, tmp_path)
    assert agreed_lock(data).recipes == ours.recipes


def test_a_conflict_over_data_forgets_the_data(tmp_path: Path) -> None:
    def with_data(content: str) -> Lock:
        recipe = lock.recipes["digits"]
        other = replace(recipe.data["images"], digest=digest(content))
        digits = replace(recipe, data={**recipe.data, "images": other})
        return replace(lock, recipes={**lock.recipes, "digits": digits})

    lock = an_example()
    data = merged(with_data("a"), lock, with_data("b"), tmp_path)
    assert agreed_lock(data).recipes["digits"].data.keys() == {"digits"}


def test_the_side_whose_environment_a_merge_mixed_is_left_out(tmp_path: Path) -> None:
    def with_versions(numpy: str, torch: str) -> Lock:
        between = [a_wheel(f"package-{number}", "1") for number in range(9)]
        found = an_environment(a_wheel("numpy", numpy), *between, a_wheel("torch", torch))
        return Lock(environments={found.key: found}, recipes={"digits": a_recipe("digits", found)})

    ours, theirs = with_versions("2.3.2", "2.13.0"), with_versions("2.3.1", "2.14.0")
    data = merged(ours, with_versions("2.3.1", "2.13.0"), theirs, tmp_path)
    assert agreed_lock(data) == theirs


def test_claims_of_a_class_that_a_merge_mixed_are_left_out(tmp_path: Path) -> None:
    common = {f"fact-{number}": "as before" for number in range(9)}

    def on(facts: dict[str, str]) -> Lock:
        classes = named(facts)
        lock = an_example()
        digits = lock.recipes["digits"]
        train = digits.stages["train"]
        claims = tuple(replace(train.claims[0], numeric_class=key) for key in classes)
        seeds = {key: replace(train.seeds["accuracy"], numeric_class=key) for key in classes}
        stages = {**digits.stages, "train": replace(train, claims=claims, seeds=seeds)}
        recipes = {**lock.recipes, "digits": replace(digits, stages=stages)}
        return replace(lock, recipes=recipes, classes=classes)

    ours, theirs = {**common, "fact-0": "ours"}, {**common, "fact-8": "theirs"}
    found = agreed_lock(merged(on(ours), on(common), on(theirs), tmp_path))
    # Git joins the last fact of theirs to ours too.
    assert found.classes == named(theirs)
    train = found.recipes["digits"].stages["train"]
    assert [claim.numeric_class for claim in train.claims] == [*named(theirs)]
    assert [*train.seeds] == [*named(theirs)]
    assert parse_lock(render_lock(found)) == found


def test_a_conflict_between_results_of_one_class_is_a_failure(tmp_path: Path) -> None:
    base = an_example()

    def with_output(content: str) -> Lock:
        digits = base.recipes["digits"]
        train = digits.stages["train"]
        claims = (replace(train.claims[0], output=digest(content)),)
        stages = {**digits.stages, "train": replace(train, claims=claims)}
        return replace(base, recipes={**base.recipes, "digits": replace(digits, stages=stages)})

    data = merged(with_output("a"), base, with_output("b"), tmp_path)
    with pytest.raises(NotReproducibleError) as caught:
        agreed_lock(data)
    assert str(caught.value) == (
        "two branches claim different results of recipe 'digits'\n"
        f"  derivation: {digest('derivation of train')}\n"
        f"  class:      {CLASS}\n"
        f"  ours:       {digest('a')}\n"
        f"  theirs:     {digest('b')}\n"
        "Keep one of the two claims in model.lock, then see which holds: "
        "modelbuild verify --rebuild digits"
    )


def test_of_two_statistics_over_seeds_those_of_more_seeds_stay(tmp_path: Path) -> None:
    def with_seeds(*seeds: LockedSeeds) -> Lock:
        digits = base.recipes["digits"]
        found = {f"metric {place}": each for place, each in enumerate(seeds)}
        stages = {**digits.stages, "train": replace(digits.stages["train"], seeds=found)}
        return replace(base, recipes={**base.recipes, "digits": replace(digits, stages=stages)})

    base = an_example()
    now, before = digest("derivation of train"), digest("before")
    ours = with_seeds(*(some_seeds(derivation, seeds=5) for derivation in (now, now, before, now)))
    theirs = with_seeds(
        *(some_seeds(each, seeds=count) for each, count in ((now, 6), (now, 4), (now, 3)))
    )
    found = agreed_lock(merged(ours, base, theirs, tmp_path)).recipes["digits"].stages["train"]
    assert [each.statistics.seeds for each in found.seeds.values()] == [6, 5, 3, 5]
    assert found.current_seeds == found.seeds


def test_statistics_over_seeds_of_an_unknown_class_are_refused() -> None:
    text = GOLDEN.read_text().replace(f'class = "{CLASS}"', 'class = "000000000000"')
    assert failure(text) == (
        f"model.lock:{line_of(text, '[recipes.digits.stages.train.seeds]')}: "
        "recipes.digits.stages.train.seeds: names a numeric class that the lock does not have\n"
        f"  found: 000000000000\n{RESTORE}"
    )


# Of many recipes.


def a_large_lock(recipes: int = 10, packages: int = 60, stages: int = 2) -> Lock:
    lock = Lock(classes={CLASS: FACTS})
    for number in range(recipes):
        found = [a_wheel(f"package-{each:02}", f"1.{number}") for each in range(packages)]
        environment = an_environment(*found)
        claim = an_example().recipes["digits"].stages["train"].claims[0]
        stage = LockedStage(
            derivation=claim.derivation, run=("./train",), code=("train.py",), claims=(claim,)
        )
        recipe = a_recipe(
            f"recipe-{number}", environment, **{f"stage-{each}": stage for each in range(stages)}
        )
        lock = replace(
            lock,
            environments={**lock.environments, environment.key: environment},
            recipes={**lock.recipes, recipe.name: recipe},
        )
    return lock


def test_one_recipe_of_many_is_read_without_the_others() -> None:
    lock = a_large_lock()
    needed = lock.recipes["recipe-3"]
    text = render_lock(lock).decode()
    for line in ('resolver = "uv"', 'backend = "cpu"'):
        assert text.count(line) == len(lock.recipes)
        text = text.replace(line, "this is no TOML")
    for name, line in (
        (f"environments.{needed.environment}", 'backend = "cpu"'),
        ("recipes.recipe-3", 'resolver = "uv"'),
    ):
        before, header, after = text.partition(f"\n[{name}]\n")
        text = before + header + after.replace("this is no TOML", line, 1)
    opened = open_lock(text.encode())
    assert opened.recipes["recipe-3"] == needed
    assert opened.environments[needed.environment] == lock.environments[needed.environment]
    for broken in (opened.recipes, opened.environments):
        with pytest.raises(InvalidInputError, match=": not TOML"):
            dict(broken)
