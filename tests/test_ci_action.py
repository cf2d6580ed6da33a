"""What hosting sites run: the action's scripts, against an API that answers as theirs does."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import which
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml
from conftest import Ran, Tiny, commit, git

from modelbuild.store.store import remove_tree

ROOT = Path(__file__).parent.parent
ACTION = ROOT / ".github" / "actions" / "check"
PAGE = (ROOT / "docs" / "ci.md").read_text()
MARK = "<!-- modelbuild: models -->"
BOT = "github-actions[bot]"
REPORT = {"problems": [], "difference": {"recipes": {"tiny": {}}}}
SAME = {"problems": [], "difference": {"recipes": {}}}


# -- the comment of a pull request -----------------------------------------------------------------


class Site(ThreadingHTTPServer):
    """The comments of pull request 7 of `team/models`, and who may write them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), SiteHandler)
        self.comments: dict[int, dict] = {}
        self.refuses: int | None = None
        """The status with which writing is answered."""
        self.said: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def add(self, login: str, body: str) -> int:
        key = len(self.comments) + 1
        self.comments[key] = {"id": key, "user": {"login": login}, "body": body}
        return key

    def bodies(self) -> list[str]:
        return [each["body"] for each in self.comments.values()]


class SiteHandler(BaseHTTPRequestHandler):
    server: Site
    COMMENTS = "/repos/team/models/issues/7/comments"
    COMMENT = "/repos/team/models/issues/comments/"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        place = urlsplit(self.path)
        assert place.path == self.COMMENTS
        query = {name: int(value) for name, (value,) in parse_qs(place.query).items()}
        first = (query["page"] - 1) * query["per_page"]
        self.answer(200, list(self.server.comments.values())[first : first + query["per_page"]])

    def do_POST(self) -> None:
        assert self.path == self.COMMENTS
        if self.may_write():
            self.server.add(BOT, self.content()["body"])
            self.answer(201, {})

    def do_PATCH(self) -> None:
        if self.may_write():
            self.server.comments[self.key()]["body"] = self.content()["body"]
            self.answer(200, {})

    def do_DELETE(self) -> None:
        if self.may_write():
            del self.server.comments[self.key()]
            self.answer(204, None)

    def may_write(self) -> bool:
        assert self.headers["Authorization"] == "Bearer secret"
        self.server.said.append(self.command)
        if self.server.refuses:
            self.content()
            self.answer(self.server.refuses, {"message": "Resource not accessible by integration"})
        return not self.server.refuses

    def key(self) -> int:
        assert self.path.startswith(self.COMMENT)
        return int(self.path.removeprefix(self.COMMENT))

    def content(self) -> dict:
        return json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")

    def answer(self, status: int, content: object) -> None:
        data = b"" if content is None else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def site() -> Iterator[Site]:
    server = Site()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def comment(site: Site, folder: Path, report: dict, text: str = "### Models\n") -> Ran:
    (folder / "report.json").write_text(json.dumps(report))
    (folder / "models.md").write_text(text)
    return run_comment(site.address, folder)


def run_comment(address: str, folder: Path) -> Ran:
    done = subprocess.run(
        [sys.executable, "-I", ACTION / "comment.py", folder],
        env={
            "GITHUB_API_URL": address,
            "GITHUB_REPOSITORY": "team/models",
            "GITHUB_TOKEN": "secret",
            "PULL_REQUEST": "7",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return Ran(done.returncode, done.stdout, done.stderr)


def test_a_second_push_changes_the_same_comment(site: Site, tmp_path: Path) -> None:
    site.add("reviewer", "looks good")
    assert comment(site, tmp_path, REPORT, "first\n").code == 0
    site.add("reviewer", "why?")
    assert comment(site, tmp_path, REPORT, "second\n").code == 0
    assert site.bodies() == ["looks good", f"{MARK}\nsecond\n", "why?"]
    assert comment(site, tmp_path, REPORT, "second\n").code == 0
    assert site.said == ["POST", "PATCH"]


def test_a_comment_goes_away_when_nothing_differs_any_more(site: Site, tmp_path: Path) -> None:
    assert comment(site, tmp_path, SAME).code == 0
    assert site.said == []
    comment(site, tmp_path, REPORT)
    comment(site, tmp_path, SAME)
    assert (site.bodies(), site.said) == ([], ["POST", "DELETE"])


@pytest.mark.parametrize(
    "report", [{"problems": [{}], "difference": None}, {**SAME, "problems": [{}]}]
)
def test_a_problem_is_commented_though_nothing_differs(
    site: Site, tmp_path: Path, report: dict
) -> None:
    comment(site, tmp_path, report)
    assert len(site.comments) == 1


def test_the_comment_is_found_on_a_later_page(site: Site, tmp_path: Path) -> None:
    for number in range(230):
        site.add("reviewer", f"{number}")
    key = site.add(BOT, f"{MARK}\nfirst")
    comment(site, tmp_path, REPORT, "second\n")
    assert (len(site.comments), site.comments[key]["body"]) == (231, f"{MARK}\nsecond\n")


def test_of_two_comments_one_stays(site: Site, tmp_path: Path) -> None:
    site.add(BOT, f"{MARK}\nfirst")
    site.add(BOT, f"{MARK}\nfirst, too")
    site.add(BOT, "of another job")
    comment(site, tmp_path, REPORT, "second\n")
    assert site.bodies() == [f"{MARK}\nsecond\n", "of another job"]


def test_the_mark_in_a_comment_of_someone_else_is_nothing(site: Site, tmp_path: Path) -> None:
    site.add("stranger", f"{MARK}\nmine")
    comment(site, tmp_path, REPORT, "ours\n")
    assert site.bodies() == [f"{MARK}\nmine", f"{MARK}\nours\n"]
    comment(site, tmp_path, SAME)
    assert site.bodies() == [f"{MARK}\nmine"]


def test_a_token_of_a_fork_that_only_reads_is_said_and_no_failure(
    site: Site, tmp_path: Path
) -> None:
    site.refuses = 403
    ran = comment(site, tmp_path, REPORT)
    assert ran.code == 0
    assert ran.out.startswith("::notice::The report is in the job's summary and not in a comment")
    assert site.comments == {}


def test_a_site_that_fails_is_said_and_no_failure(site: Site, tmp_path: Path) -> None:
    site.refuses = 500
    ran = comment(site, tmp_path, REPORT)
    assert (ran.code, ran.out) == (0, "::warning::The comment could not be written: HTTP 500\n")
    ran = run_comment("http://127.0.0.1:1", tmp_path)
    assert ran.code == 0
    assert ran.out.startswith("::warning::The comment could not be written: ")


def test_a_long_comment_is_cut_by_lines_and_says_so(site: Site, tmp_path: Path) -> None:
    text = "<details>\n" + "- `package` 1.0 → 1.1\n" * 5000 + "</details>\n"
    comment(site, tmp_path, REPORT, text)
    (body,) = site.bodies()
    assert len(body) < 65_536
    kept, _, last = body.partition("\n\n</details>\n\n")
    assert kept.endswith("- `package` 1.0 → 1.1")
    assert last == "**This is not all of it: the rest is in the job's summary.**\n"


def test_a_check_that_did_not_come_to_a_report_is_no_comment(site: Site, tmp_path: Path) -> None:
    assert run_comment(site.address, tmp_path) == Ran(0, "", "")
    assert site.said == []


# -- the check -------------------------------------------------------------------------------------


def check(tiny: Tiny, runner: Path, **inputs: str) -> Ran:
    """check.sh as the runner starts it; `runner` has its folder for temporary files."""
    programs = runner / "modelbuild" / "bin"
    programs.mkdir(parents=True, exist_ok=True)
    link = programs / "modelbuild"
    if not link.exists():
        link.symlink_to(Path(sys.executable).parent / "modelbuild")
    done = subprocess.run(
        ["sh", ACTION / "check.sh"],
        cwd=tiny.root,
        env={
            **os.environ,
            "RUNNER_TEMP": str(runner),
            "GITHUB_STEP_SUMMARY": str(runner / "summary"),
            **inputs,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return Ran(done.returncode, done.stdout, done.stderr)


def outside_of_marks(text: str) -> list[str]:
    """What the runner takes for commands."""
    mark = re.search(r"^::stop-commands::([0-9a-f]{32})$", text, re.MULTILINE)
    assert mark
    between = text.partition(f"::stop-commands::{mark[1]}\n")[2].partition(f"::{mark[1]}::\n")[2]
    return [line for line in between.splitlines() if line.startswith("::")]


def test_a_check_in_a_pull_request(branch: Tiny, tmp_path: Path, site: Site) -> None:
    runner = tmp_path / "runner"
    inputs = {"BASE": "origin/main", "BUILD": "none", "VERIFY": "none"}
    same = check(branch, runner, **inputs)
    assert (same.code, outside_of_marks(same.out)) == (0, [])
    branch.replace("recipe.toml", "lr = 0.5", "lr = 0.25")
    stale = check(branch, runner, **inputs)
    assert stale.code == 4
    (line,) = outside_of_marks(stale.out)
    assert line.startswith("::error file=recipe.toml,line=17,title=model.lock::")
    assert branch.run("lock").code == 0
    (runner / "summary").unlink()
    unbuilt = check(branch, runner, **inputs)
    assert unbuilt.code == 4
    (line,) = outside_of_marks(unbuilt.out)
    assert line.startswith("::error file=recipe.toml,line=22,title=model.lock::model.lock has no")
    branch.build("--no-link")
    (runner / "summary").unlink()
    changed = check(branch, runner, **inputs)
    assert (changed.code, outside_of_marks(changed.out)) == (0, [])
    assert "- `lr` 0.5 → 0.25\n" in (runner / "summary").read_text()
    assert run_comment(site.address, runner / "modelbuild-report").code == 0
    assert site.bodies() == [f"{MARK}\n{(runner / 'summary').read_text()}"]


def test_outside_of_a_pull_request_there_is_nothing_to_compare_with(
    built: Tiny, tmp_path: Path
) -> None:
    ran = check(built, tmp_path / "runner", BASE="")
    assert ran.code == 0
    assert (tmp_path / "runner" / "summary").read_text() == (
        "### Models\n\n`model.lock` is up to date.\n"
    )


def test_a_base_that_can_not_be_had_fails_with_the_reason(branch: Tiny, tmp_path: Path) -> None:
    ran = check(branch, tmp_path / "runner", BASE="origin/nowhere")
    assert ran.code == 2
    assert "error: there is no git revision 'origin/nowhere'" in ran.out
    assert not (tmp_path / "runner" / "summary").exists()


def test_a_message_of_a_change_can_not_end_the_pause(branch: Tiny, tmp_path: Path) -> None:
    branch.write("numbers.txt", "1\n")
    branch.replace("recipe.toml", 'name = "tiny"', 'name = "tiny"\ndescription = "\\n::error::x"')
    branch.replace("train.py", "import json", "print('::error::mine')\nimport json")
    ran = check(branch, tmp_path / "runner", BASE="origin/main", BUILD="all")
    assert ran.code != 0
    assert all("title=model.lock::" in line for line in outside_of_marks(ran.out))


def test_a_store_from_a_cache_is_as_good_as_before(built: Tiny, tmp_path: Path) -> None:
    """As the cache's own action packs it: `tar --posix`, at the same place."""
    (cache,) = (step["with"] for step in steps() if "actions/cache@" in step.get("uses", ""))
    kept = [line.rpartition("/")[2] for line in cache["path"].splitlines()]
    store = tmp_path / "store"
    tar = ["tar", "--posix", "-C", store, "-cf", tmp_path / "cache.tar", *kept]
    subprocess.run(tar, check=True)
    store.rename(tmp_path / "before")
    store.mkdir()
    subprocess.run(["tar", "-C", store, "-xf", tmp_path / "cache.tar"], check=True)
    stages = built.build("--locked")
    assert {each["how"] for each in stages.values()} == {"valid"}
    ran = built.run("verify", "--rebuild")
    assert ran.code == 0, ran.err
    assert ran.out.count("rebuild identical to the output in the store") == 2
    remove_tree(tmp_path / "before")


# -- the files that say what is run ----------------------------------------------------------------


def steps() -> list[dict]:
    return yaml.safe_load((ACTION / "action.yml").read_text())["runs"]["steps"]


def blocks() -> list[str]:
    return re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def tool(name: str, *arguments: str | Path) -> None:
    program = Path(sys.executable).parent / name
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """The examples of the page as the files that they would be."""
    github, gitlab, its_comment, hooks = blocks()
    (tmp_path / ".github" / "workflows").mkdir(parents=True)
    workflow = github.replace("COMMIT", "0" * 40)
    (tmp_path / ".github" / "workflows" / "models.yml").write_text(workflow)
    (tmp_path / ".gitlab-ci.yml").write_text(gitlab + its_comment)
    (tmp_path / ".pre-commit-config.yaml").write_text(hooks.replace("COMMIT", "0" * 40))
    return tmp_path


def test_workflows_and_actions_fit_their_schemas(examples: Path) -> None:
    workflows = [*(ROOT / ".github/workflows").iterdir(), *examples.glob(".github/workflows/*")]
    schema = "--builtin-schema"
    tool("check-jsonschema", schema, "vendor.github-workflows", *workflows)
    tool("check-jsonschema", schema, "vendor.github-actions", ACTION / "action.yml")
    transformed = ["--data-transform", "gitlab-ci", examples / ".gitlab-ci.yml"]
    tool("check-jsonschema", schema, "vendor.gitlab-ci", *transformed)


def test_zizmor_finds_nothing(examples: Path) -> None:
    tool("zizmor", "--offline", "--no-config", "--strict-collection", ROOT / ".github")
    tool("zizmor", "--offline", "--no-config", "--strict-collection", examples / ".github")


def test_what_is_used_of_others_is_pinned_by_commit() -> None:
    files = [*(ROOT / ".github").rglob("*.yml")]
    used = re.findall(r"uses: (\S+)(.*)", "\n".join([*(f.read_text() for f in files), PAGE]))
    assert len(used) >= 5
    for name, comment in used:
        if not name.startswith(("OWNER/", "./")):
            assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", name), name
            assert re.fullmatch(r" # v\d+\.\d+\.\d+", comment), name


def test_the_page_has_every_input_and_no_other() -> None:
    inputs = yaml.safe_load((ACTION / "action.yml").read_text())["inputs"]
    section = PAGE.partition("| input | default | |")[2].partition("\n\n")[0]
    rows = [[cell.strip(" `") for cell in row.split("|")[1:3]] for row in section.split("\n")[2:]]
    assert {name for name, _ in rows} == set(inputs)
    for name, default in rows:
        assert inputs[name]["default"] in (default, ""), name


def test_only_the_step_that_comments_has_a_token() -> None:
    with_token = [step["name"] for step in steps() if "token" in json.dumps(step).lower()]
    assert with_token == ["Comment"]


# -- the examples for other places -----------------------------------------------------------------


def job(name: str) -> dict:
    return next(found[name] for block in blocks() if name in (found := yaml.safe_load(block)))


def shell(tiny: Tiny, text: str, **variables: str) -> Ran:
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-e", "-c", text],
        cwd=tiny.root,
        env={**os.environ, "PATH": programs, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def test_the_job_for_gitlab(branch: Tiny) -> None:
    branch.replace("recipe.toml", "lr = 0.5", "lr = 0.25")
    base = git(branch.root, "rev-parse", "main")
    _install, line = job("models")["script"]
    ran = shell(branch, line, CI_MERGE_REQUEST_DIFF_BASE_SHA=base)
    assert ran.code == 4
    artifacts = job("models")["artifacts"]
    (found,) = json.loads((branch.root / artifacts["reports"]["codequality"]).read_text())
    assert found["location"]["lines"] == {"begin": 17}
    assert (branch.root / artifacts["paths"][0]).read_text().startswith("> [!WARNING]\n")


class GitLab(BaseHTTPRequestHandler):
    """The notes of a merge request, of which number 1 is someone else's."""

    NOTES = "/projects/5/merge_requests/7/notes"
    notes: dict[int, dict]

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        found = {"id": 42} if self.path == "/user" else list(self.notes.values())
        assert self.path in ("/user", f"{self.NOTES}?per_page=100&sort=asc")
        self.answer(found)

    def do_POST(self) -> None:
        assert self.path == self.NOTES
        key = len(self.notes) + 1
        self.notes[key] = {"id": key, "author": {"id": 42}, "body": self.body()}
        self.answer({})

    def do_PUT(self) -> None:
        self.notes[int(self.path.removeprefix(f"{self.NOTES}/"))]["body"] = self.body()
        self.answer({})

    def body(self) -> str:
        assert self.headers["PRIVATE-TOKEN"] == "secret"
        return parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())["body"][0]

    def answer(self, content: object) -> None:
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.mark.skipif(not (which("curl") and which("jq")), reason="needs curl and jq")
def test_the_comment_for_gitlab_is_changed_in_place(tmp_path: Path) -> None:
    stranger = {"id": 1, "author": {"id": 1}, "body": "<!-- models -->\nmine"}
    GitLab.notes = {1: stranger}
    install, *lines = job("models-comment")["script"]
    assert install.startswith("apk add ")
    with ThreadingHTTPServer(("127.0.0.1", 0), GitLab) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        for text in ("first & only\n", "second\n"):
            (tmp_path / "models.md").write_text(text)
            ran = shell(
                Tiny(tmp_path),
                "\n".join(lines),
                CI_API_V4_URL=f"http://127.0.0.1:{server.server_port}",
                CI_PROJECT_ID="5",
                CI_MERGE_REQUEST_IID="7",
                COMMENT_TOKEN="secret",
            )
            assert ran.code == 0, ran.err
            assert GitLab.notes[2]["body"] == f"<!-- models -->\n{text}"
        server.shutdown()
    assert GitLab.notes.keys() == {1, 2}
    assert GitLab.notes[1] == stranger


def test_the_lines_for_any_shell(branch: Tiny) -> None:
    (text,) = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert shell(branch, text).code == 0
    branch.replace("recipe.toml", "lr = 0.5", "lr = 0.25")
    assert shell(branch, text).code == 4
    assert (branch.root / "models.md").exists()


# -- pre-commit ------------------------------------------------------------------------------------


def hooks(tiny: Tiny, *arguments: str | Path) -> Ran:
    programs = Path(sys.executable).parent
    return shell(
        tiny,
        shlex.join(map(str, [programs / "pre-commit", *arguments])),
        PRE_COMMIT_HOME=str(tiny.root.parent / "pre-commit"),
    )


@pytest.fixture
def hooked(branch: Tiny) -> Tiny:
    """A clone that uses the hooks, with the modelbuild of these tests."""
    own = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    local = [{**hook, "language": "system", "stages": ["pre-commit"]} for hook in own]
    config = {"repos": [{"repo": "local", "hooks": local}]}
    branch.write(".pre-commit-config.yaml", yaml.safe_dump(config))
    commit(branch, "hooks")
    return branch


def test_a_commit_that_leaves_the_lock_behind_is_stopped(hooked: Tiny) -> None:
    hooked.replace("recipe.toml", "lr = 0.5", "lr = 0.25")
    git(hooked.root, "add", "-A")
    ran = hooks(hooked, "run", "modelbuild-lock-check")
    assert ran.code == 1
    assert "tiny: parameters: lr" in ran.out
    locked = hooks(hooked, "run", "modelbuild-lock")
    assert (locked.code, "files were modified by this hook" in locked.out) == (1, True)
    git(hooked.root, "add", "-A")
    for hook in ("modelbuild-lock", "modelbuild-lock-check"):
        ran = hooks(hooked, "run", hook)
        assert ran.code == 0, ran.out


def test_code_and_data_are_held_against_the_lock_too(hooked: Tiny) -> None:
    for name in ("train.py", "numbers.txt"):
        before = (hooked.root / name).read_text()
        hooked.write(name, before + "\n")
        git(hooked.root, "add", "-A")
        assert hooks(hooked, "run", "modelbuild-lock-check").code == 1
        (hooked.root / name).write_text(before)
        git(hooked.root, "add", "-A")


@pytest.mark.slow
@pytest.mark.network
def test_pre_commit_installs_the_hook_from_this_repository(branch: Tiny) -> None:
    ran = hooks(branch, "try-repo", ROOT, "modelbuild-lock-check", "--all-files")
    assert ran.code == 0, ran.out + ran.err
    assert "model.lock is current" in ran.out
