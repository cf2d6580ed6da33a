"""The page of `modelbuild report`: its structure, what it says, and what untrusted text can do."""

from __future__ import annotations

import base64
import itertools
import re
import subprocess
from collections import Counter
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path

import pytest
from conftest import RECIPE, Tiny, how
from report_workspace import EVIL, git

import modelbuild.cli.report
from modelbuild.store.store import Store, remove_tree

LIBRARIES = Path(modelbuild.cli.report.__file__).parent
VOID = {"meta", "br", "link", "input", "img"}


class Page(HTMLParser):
    """Elements of a page; fails where they are not nested."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["script"]:
            self.scripts.append(data)
        elif self.open[-1:] != ["style"]:
            self.words.append(data)

    def values(self, name: str) -> list[str]:
        return [each[name] or "" for _, each in self.elements if name in each]

    @property
    def said(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))


def write_page(workspace: Tiny, *arguments: str) -> Page:
    ran = workspace.run("report", "--quiet", *arguments)
    assert (ran.code, ran.out) == (0, "")
    return Page((workspace.root / "report.html").read_text())


@pytest.fixture(scope="module")
def page(reported: Tiny) -> Page:
    return write_page(reported)


# -- structure ------------------------------------------------------------------------------------


def test_ids_are_unique_and_every_link_leads_somewhere(page: Page):
    ids = page.values("id")
    assert [name for name, times in Counter(ids).items() if times > 1] == []
    assert {link.removeprefix("#") for link in page.values("href")} <= set(ids)


def test_headings_go_down_one_by_one(page: Page):
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_every_table_says_what_it_is_and_can_be_scrolled_by_keyboard(page: Page):
    counts = Counter(tag for tag, _ in page.elements)
    assert counts["table"] == counts["caption"] > 5
    regions = [each for tag, each in page.elements if each.get("class") == "scroll"]
    assert len(regions) == counts["table"]
    assert all(each["tabindex"] == "0" and each["aria-label"] for each in regions)


def test_every_node_has_details(page: Page):
    nodes = [each["href"] for _, each in page.elements if "node" in (each.get("class") or "")]
    details = {f"#{each.get('id')}" for tag, each in page.elements if tag == "details"}
    assert len(nodes) == 9
    assert set(nodes) <= details


def test_a_recipe_that_is_read_is_led_to_where_it_is_on_the_page(tiny: Tiny):
    reading = RECIPE.partition("[stages.evaluate]")[0].replace('"tiny"', '"reading"')
    reading = reading.replace('path = "numbers.txt"', 'recipe = "tiny"')
    tiny.write("reading/recipe.toml", reading)
    tiny.write("reading/train.py", "")
    assert tiny.run("lock").code == 0
    alone = write_page(tiny, "reading")
    assert "It is the output of tiny:evaluate, which is not on this page." in alone.said
    both = write_page(tiny)
    for page in (alone, both):
        assert {link.removeprefix("#") for link in page.values("href")} <= set(page.values("id"))
    assert "#tiny--output--evaluate" in both.values("href")


# -- content --------------------------------------------------------------------------------------


def test_the_page_says_what_verify_says(page: Page):
    assert "✓ all that was checked holds (0 of 2 stages built again)" in page.said
    assert page.said.count("✓ intact") >= 2
    assert page.said.count("✓ holds") >= 2


def test_runs_are_held_against_the_current_one_and_seed_noise(page: Page):
    assert "larger than seed noise" in page.said
    assert "within seed noise" in page.said
    assert "(3 seeds" in page.said


def test_history_names_what_moved(page: Page):
    assert "params.lr" in page.said
    assert "Ada" in page.said


def test_a_metric_that_never_moved_makes_no_chart(tiny: Tiny):
    tiny.replace("train.py", '{"loss": weight}', '{"loss": weight, "rows": len(numbers)}')
    git(tiny, "init", "-q")
    for lr in ("0.5", "0.25"):
        tiny.replace("recipe.toml", "lr = 0.5", f"lr = {lr}")
        tiny.build()
        git(tiny, "add", "-A")
        git(tiny, "commit", "-q", "-m", f"lr {lr}")
    page = write_page(tiny)
    assert "train loss over commits" in page.said
    assert "train rows over commits" not in page.said
    assert "The same in every commit: train rows." in page.said


def test_what_of_a_log_is_not_drawn_is_said(page: Page):
    assert "each run: 1 line of 2,001 can't be read, and left out" in page.said
    assert re.search(r"each run: thinned from 2,000 to \d{3} points a curve", page.said)
    assert "each run: 1 value not finite (NaN or infinite), and not drawn" in page.said
    assert "Curves of the current run: not in the output: absent.csv." in page.said
    assert re.search(r"40(\.\d+)? at step 1,234", page.said), "a peak"


def test_commands_build_it_again(page: Page, reported: Tiny):
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=reported.root, capture_output=True, text=True, check=True
    ).stdout.strip()
    assert (
        f"git checkout {head} modelbuild build --locked recipe.toml "
        "modelbuild verify --rebuild recipe.toml"
    ) in page.said


def test_no_path_of_this_machine_is_in_the_page(page: Page, reported: Tiny):
    assert str(reported.root.parent) not in page.text


def test_an_altered_output_is_told_without_folders_of_this_machine(tiny: Tiny):
    output = Path(tiny.build()["train"]["path"])
    output.chmod(0o700)
    (output / "model.json").chmod(0o600)
    (output / "model.json").write_text("{}")
    page = write_page(tiny)
    assert "✗ corrupt" in page.said
    assert f"path: STORE/objects/{output.name}" in page.said
    assert str(tiny.root.parent) not in page.text


def test_the_same_records_give_the_same_bytes(page: Page, reported: Tiny):
    assert reported.run("report", "-o", "second.html").out == "second.html\n"
    assert (reported.root / "second.html").read_text() == page.text


def test_a_page_is_small(page: Page):
    assert len(page.text) < 600_000


def test_curves_are_in_no_derivation(tiny: Tiny):
    tiny.build()
    tiny.replace(
        "recipe.toml", 'metrics = "metrics.json"', 'metrics = "metrics.json"\ncurves = "c"'
    )
    before = (tiny.root / "model.lock").read_bytes()
    assert how(tiny.build()) == {"train": "valid", "evaluate": "valid"}
    assert (tiny.root / "model.lock").read_bytes() == before


def test_a_second_build_is_told_in_one_of_three_words(tiny: Tiny):
    tiny.build()
    told = write_page(tiny, "--rebuild").said
    assert "✓ identical to the output in the store" in told
    assert "(2 of 2 stages built again)" in told
    tiny.replace("train.py", "random.random()", "__import__('time').time_ns()")
    tiny.build()
    ran = tiny.run("report", "--rebuild")
    assert ran.code == 0
    assert "the page says: " in ran.err
    told = Page((tiny.root / "report.html").read_text()).said
    assert "✗ different from the output in the store" in told
    assert "all that was checked holds" not in told


def test_what_is_not_here_is_said(tiny: Tiny, store: Store):
    tiny.run("lock")
    told = write_page(tiny).said
    assert "not built here" in told
    assert "found not to hold" in told
    tiny.build()
    for output in (store.root / "objects").glob("*-tiny-*"):
        remove_tree(output)
    told = write_page(tiny).said
    assert "absent: not on this machine" in told
    assert "2 outputs not on this machine" in told
    assert "git has no commit with a lock of this recipe." in told


def test_a_stale_lock_makes_a_page_all_the_same(tiny: Tiny):
    tiny.build()
    tiny.write("numbers.txt", "4\n")
    told = write_page(tiny).said
    assert "✗ stale" in told
    assert "data 'numbers'" in told


# -- trust ----------------------------------------------------------------------------------------


def test_text_from_elsewhere_stays_text(page: Page):
    assert not [tag for tag, _ in page.elements if tag == "img"]
    assert EVIL in page.said
    assert "\u202e" not in page.text
    assert "ev<il> & \\u202e" in page.said


def test_only_the_script_of_the_page_may_run(page: Page):
    runs = [each for tag, each in page.elements if tag == "script" and "type" not in each]
    assert runs == [{}]
    script = page.scripts[-1]
    policy = {
        each["http-equiv"]: each["content"] for _, each in page.elements if "http-equiv" in each
    }["Content-Security-Policy"]
    known = base64.b64encode(sha256(script.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; script-src 'sha256-{known}'; style-src 'unsafe-inline'; "
        "base-uri 'none'; form-action 'none'"
    )
    handlers = [name for _, each in page.elements for name in each if name.startswith("on")]
    assert handlers == []
    assert page.values("src") == []


def test_the_libraries_are_the_ones_that_were_built_with_their_licences():
    written = (LIBRARIES / "libraries" / "SHA256SUMS").read_text()
    text = (LIBRARIES / "libraries.js").read_bytes()
    assert written == f"{sha256(text).hexdigest()}  ../libraries.js\n"
    for package in ("@observablehq/plot 0.6.17 (ISC)", "@dagrejs/dagre 3.1.3 (MIT)", "d3 7"):
        assert package.encode() in text
    assert b"Permission to use, copy, modify" in text
    assert b"</script" not in text


@pytest.mark.network
@pytest.mark.slow
def test_the_libraries_are_built_again_from_their_lock(tmp_path: Path):
    import shutil

    if not shutil.which("npm"):
        pytest.skip("there is no npm")
    shutil.copytree(LIBRARIES / "libraries", tmp_path / "libraries")
    for command in (["npm", "ci", "--ignore-scripts", "--no-audit"], ["node", "build.mjs"],
                    ["sha256sum", "--check", "SHA256SUMS"]):  # fmt: skip
        subprocess.run(command, cwd=tmp_path / "libraries", check=True, capture_output=True)
