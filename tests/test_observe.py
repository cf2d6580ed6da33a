"""`modelbuild init -- COMMAND`: a recipe from one observed run."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import Tiny
from test_init import installed, write

from modelbuild.draft.initialise import InitReport, InitRequest, init
from modelbuild.draft.observe import observe
from modelbuild.errors import CommandFailedError, ModelbuildError, UsageError
from modelbuild.spec.recipe import LocationData, PathData

OPTIONS = """\
import argparse, json, os, random
import layers

parser = argparse.ArgumentParser()
parser.add_argument("-i", "--input-file", default="numbers.txt")
parser.add_argument("--lr", type=float, default=0.5)
parser.add_argument("--name", default="plain")
parser.add_argument("--seed", type=int, default=3)
parser.add_argument("--work-dir", default="runs")
parser.add_argument("--verbose", action="store_true")
args = parser.parse_args()
random.seed(args.seed)
os.makedirs(args.work_dir, exist_ok=True)
loss = sum(map(int, open(args.input_file))) * args.lr * random.random() * layers.WIDTH
json.dump([loss], open(os.path.join(args.work_dir, "model.json"), "w"))
json.dump({"loss": loss}, open(os.path.join(args.work_dir, "scores.json"), "w"))
"""

FIXED = """\
import json, os
width = json.load(open("config.json"))["width"]
rows = [open(f"parts/{name}").read() for name in sorted(os.listdir("parts"))]
words = open("words list.txt").read().split()
for epoch in range(2):
    open(f"model-{epoch}.txt", "w").write(str(width * len(rows) + len(words)))
os.makedirs("report/all", exist_ok=True)
json.dump({"rows": len(rows)}, open("report/all/metrics.json", "w"))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "churn"
    folder.mkdir()
    return folder


def watch(folder: Path, *command: str, **options: object) -> InitReport:
    return init(InitRequest(folder=folder, command=command, **options))  # type: ignore[arg-type]


def python(folder: Path, *words: str) -> InitReport:
    return watch(folder, sys.executable, *words)


# -- the recipe ------------------------------------------------------------------------------------


def test_paths_become_data_and_output_numbers_parameters(folder: Path) -> None:
    write(folder, train_py=OPTIONS, layers_py="WIDTH = 2\n", unused_py="", numbers_txt="1\n2\n")
    report = python(
        folder, "train.py", "-i", "numbers.txt", "--lr=1e-3", "--name", "a{b", "--verbose"
    )
    recipe = report.recipe
    stage = recipe.stages["train"]
    assert stage.run == (
        *("python", "train.py", "-i", "{data.numbers}", "--lr={params.lr}"),
        *("--name", "{params.name}", "--verbose", "--seed", "{seed}", "--work-dir", "{out}"),
    )
    assert recipe.data == {"numbers": PathData(path="numbers.txt")}
    assert recipe.params == {"lr": 0.001, "name": "a{b"}
    assert recipe.code == ("layers.py", "train.py")
    assert recipe.determinism.seed == 3
    assert stage.metrics == "scores.json"
    assert report.notes == ()


def test_what_it_wrote_is_left_where_it_is_and_is_no_data_the_next_time(folder: Path) -> None:
    write(folder, train_py=OPTIONS, layers_py="WIDTH = 2\n", numbers_txt="1\n2\n")
    first = python(folder, "train.py").recipe
    assert (folder / "runs" / "model.json").exists()
    (folder / "recipe.toml").unlink()
    assert python(folder, "train.py").recipe == first


def test_a_script_with_fixed_places_runs_in_a_copy_of_its_code(folder: Path) -> None:
    write(folder, fit_py=FIXED, config_json='{"width": 3}', parts__a_csv="1", parts__b_csv="2")
    (folder / "words list.txt").write_text("a b c")
    report = python(folder, "fit.py")
    assert report.recipe.code == ("fit.py", "config.json")
    assert report.recipe.data == {
        "parts": PathData(path="parts"),
        "words-list": PathData(path="words list.txt"),
    }
    stage = report.recipe.stages["fit"]
    assert stage.run == (
        *("sh", "-c"),
        'cp -R --no-preserve=mode . "$TMPDIR/run" && cd "$TMPDIR/run" && '
        'ln -s "{data.parts}" parts && ln -s "{data.words-list}" \'words list.txt\' && "$@" && '
        "cp -R --parents model-*.txt report {out}",
        *("sh", "python", "fit.py"),
    )
    assert stage.metrics == "report/all/metrics.json"
    assert report.notes == ()


@pytest.mark.parametrize("place", ["args.out", "'.'"])
def test_what_tensorboard_writes_is_not_kept(tiny: Tiny, place: str) -> None:
    (tiny.root / "recipe.toml").unlink()
    tiny.write(
        "train.py",
        f"""\
        import argparse, os, time
        parser = argparse.ArgumentParser()
        parser.add_argument("--out", default="runs")
        args = parser.parse_args()
        os.makedirs({place}, exist_ok=True)
        open(f"{{{place}}}/events.out.tfevents.{{time.time()}}.host.1.0", "w").write("x")
        open(f"{{{place}}}/model.txt", "w").write("1")
        """,
    )
    assert tiny.run("init", "--", sys.executable, "train.py").code == 0
    assert [each.name for each in Path(tiny.build()["train"]["path"]).iterdir()] == ["model.txt"]


def test_that_nothing_is_left_without_tensorboards_files_is_said(folder: Path) -> None:
    write(folder, train_py="open('events.out.tfevents.1.host.1.0', 'w')\n")
    assert python(folder, "train.py").notes == (
        "train.py wrote nothing but TensorBoard's files, which are not kept: a stage must write "
        "what it makes to its output folder, {out}.",
    )


def test_packages_are_those_that_were_imported(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = installed(tmp_path, alpha="1.2.0+cpu", beta="2.0", gamma="3.0", delta="4.0", eps="5")
    packages = prefix / "lib" / "python3.12" / "site-packages"
    imports = {"alpha": "import beta, delta, eps", "eps": "import beta"}
    for name in ("alpha", "beta", "gamma", "delta", "eps"):
        (packages / name).mkdir()
        (packages / name / "__init__.py").write_text(imports.get(name, ""))
    about = packages / "alpha-1.2.0+cpu.dist-info" / "METADATA"
    about.write_text(about.read_text() + "Requires-Dist: delta\nRequires-Dist: nothere\n")
    write(
        folder,
        train_py="""\
        import sys
        import alpha
        if len(sys.argv) > 5:
            import gamma
        open("model.txt", "w").write("1")
        """,
    )
    monkeypatch.setenv("PYTHONPATH", str(packages))
    report = python(folder, "train.py")
    assert report.recipe.environment.packages == ("alpha==1.2.0", "beta==2.0", "eps==5")


def test_places_outside_of_the_workspace_become_locations(folder: Path, tmp_path: Path) -> None:
    write(tmp_path, corpora__news__a_txt="1")
    write(
        folder,
        train_py="""\
        import sys
        text = open(sys.argv[2] + "/a.txt").read()
        open(sys.argv[4], "w").write(text)
        """,
    )
    report = python(folder, "train.py", "--data", "../corpora/news", "--out", "model.txt")
    assert report.recipe.data == {"news": LocationData(location="news")}
    assert report.recipe.stages["train"].run[2:] == (
        *("--data", "{data.news}", "--out", "{out}/model.txt"),
    )
    assert report.notes == (
        "data 'news' lies outside of the workspace: say where with MODELBUILD_LOCATION_NEWS, or "
        "in config.toml.",
    )


def test_a_script_below_a_shell_is_observed_too(folder: Path) -> None:
    write(folder, train_py='open("m.txt", "w").write(open("a.txt").read())\n', a_txt="1")
    write(folder, run_sh="cat b.txt > /dev/null\npython train.py\n", b_txt="2")
    (folder / "bin").mkdir()
    (folder / "bin" / "python").symlink_to(sys.executable)
    report = watch(folder, "env", f"PATH={folder}/bin:/usr/bin:/bin", "sh", "run.sh")
    assert report.script == "train.py"
    assert set(report.recipe.data) == {"a", "b"}
    assert set(report.recipe.code) == {"run.sh", "train.py"}


# -- what a stage can't do -------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_download_is_said_without_its_login(folder: Path, tmp_path: Path, server: str) -> None:
    (tmp_path / "corpus.txt").write_text("1 2 3")
    address = f"{server}/corpus.txt?token=secret"
    write(
        folder,
        train_py=f"""\
        import urllib.request
        text = urllib.request.urlopen({address!r}).read()
        open("model.txt", "wb").write(text)
        """,
    )
    report = python(folder, "train.py")
    assert (
        f"train.py downloads from {server}/corpus.txt: a stage has no network. Declare what it "
        'fetches as [data.NAME] url = "...", and pass {data.NAME}.'
    ) in report.notes
    assert "secret" not in (folder / "recipe.toml").read_text()


def test_a_command_that_fails_writes_nothing_and_its_exit_code_is_ours(tiny: Tiny) -> None:
    (tiny.root / "recipe.toml").unlink()
    tiny.write("train.py", "print('here'); raise SystemExit(9)\n")
    ran = tiny.run("init", "--", sys.executable, "train.py", "--epochs", "1")
    assert ran.code == 9
    assert ran.out == ""
    assert ran.err == (
        f"here\nerror: {sys.executable} train.py --epochs 1 ended with exit code 9\n"
        "Nothing was written. It must end with 0 to be observed.\n"
    )
    assert not (tiny.root / "recipe.toml").exists()
    assert not (tiny.root / ".gitignore").exists()


def test_a_killed_command_has_the_exit_code_of_a_shell(folder: Path) -> None:
    write(folder, train_py="import os; os.kill(os.getpid(), 9)\n")
    with pytest.raises(CommandFailedError) as caught:
        python(folder, "train.py")
    assert caught.value.exit_code == 137


def test_no_such_program_and_no_python(folder: Path) -> None:
    with pytest.raises(UsageError) as caught:
        watch(folder, "pythom", "train.py")
    assert str(caught.value) == (
        "pythom can't be run: No such file or directory\n"
        "Give the command as in a shell: modelbuild init -- python train.py"
    )
    with pytest.raises(ModelbuildError) as missing:
        watch(folder, "true")
    assert str(missing.value) == (
        f"true ran no Python script below {folder}\n"
        "Python is not observed where it is started with -I, -E or -S, or with a PYTHONPATH of its "
        "own."
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--"], "modelbuild init: there is no command after --"),
        (["--script", "a.py", "--", "true"], "--script and a command exclude each other"),
    ],
)
def test_a_wrong_command_line_is_said(tiny: Tiny, words: list[str], message: str) -> None:
    ran = tiny.run("init", *words)
    assert ran.code == 2
    assert message in ran.err


# -- watching --------------------------------------------------------------------------------------


def test_children_threads_and_forks_are_watched(folder: Path) -> None:
    for name in "abcd":
        (folder / f"{name}.txt").write_text(name)
    write(
        folder,
        train_py="""\
        import multiprocessing, os, subprocess, sys, threading
        def read(name): open(name).read()
        thread = threading.Thread(target=read, args=["a.txt"])
        thread.start()
        thread.join()
        process = multiprocessing.get_context("fork").Process(target=read, args=["b.txt"])
        process.start()
        process.join()
        subprocess.run([sys.executable, "-c", "open('c.txt').read()"], check=True)
        subprocess.run(["cat", "d.txt"], check=True, stdout=subprocess.DEVNULL)
        """,
    )
    seen = observe([sys.executable, "train.py"], folder, folder)
    assert {path.name for path in seen.read} >= {"a.txt", "b.txt", "c.txt", "d.txt"}
    assert "cat" in seen.programs
    assert seen.scripts == (folder / "train.py",)


def test_a_program_that_closes_all_files_is_watched_and_keeps_its_own(folder: Path) -> None:
    (folder / "a.txt").write_text("a")
    write(
        folder,
        train_py="""\
        import os
        os.closerange(3, 100)
        files = [os.open(f"m{number}.txt", os.O_WRONLY | os.O_CREAT) for number in range(20)]
        open("a.txt").read()
        """,
    )
    seen = observe([sys.executable, "train.py"], folder, folder)
    assert folder / "a.txt" in seen.read
    assert {path.stat().st_size for path in folder.glob("m*.txt")} == {0}


def test_what_our_own_messages_are_written_to_is_no_output(tiny: Tiny) -> None:
    (tiny.root / "recipe.toml").unlink()
    tiny.write("train.py", "print('epoch 1')\nopen('model.txt', 'w').write('1')\n")
    with open(tiny.root / "init.log", "w") as log:
        command = tiny.command("init", "--", sys.executable, "train.py")
        subprocess.run(command, cwd=tiny.root, stderr=log, stdout=log, check=True)
    text = (tiny.root / "recipe.toml").read_text()
    assert "model.txt" in text
    assert "init.log" not in text


def test_the_users_own_sitecustomize_still_runs(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, site__sitecustomize_py="import builtins; builtins.GREETING = 'hello'\n")
    write(folder, train_py="open('model.txt', 'w').write(GREETING)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    assert observe([sys.executable, "train.py"], folder, folder).python
    assert (folder / "model.txt").read_text() == "hello"


ABOVE = """\
import json
from pathlib import Path
rows = Path(__file__).absolute().parents[1] / "rows"
count = len((rows / "rows.train").read_text()) + len(open("../rows/rows.test").read())
json.dump({"rows": count}, open("metrics.json", "w"))
"""


def test_data_beside_the_recipes_folder_lies_beside_the_copy(tiny: Tiny) -> None:
    for path in tiny.root.glob("*.*"):
        path.unlink()
    subprocess.run(["git", "init", "-q"], cwd=tiny.root, check=True)
    tiny.write("more examples/guide/fit.py", ABOVE)
    tiny.write("more examples/rows/rows.train", "12")
    tiny.write("more examples/rows/rows.test", "345")
    guide = Tiny(tiny.root / "more examples/guide", tiny.environment)
    assert guide.run("init", "--", sys.executable, "fit.py").code == 0
    recipe = (guide.root / "recipe.toml").read_text()
    assert '[data.rows]\npath = "../rows/rows.test"' in recipe
    assert '[data.rows-train]\npath = "../rows/rows.train"' in recipe
    assert guide.build()["fit"]["metrics"] == {"rows": 5}


DEEP = """\
import json
from nets.width import WIDTH
import extra, beside
json.dump({"width": WIDTH + extra.MORE + beside.LESS}, open("metrics.json", "w"))
"""


@pytest.mark.parametrize("by_path", [True, False], ids=["PYTHONPATH", "sys.path"])
def test_modules_are_imported_from_where_the_command_had_python_look(
    tiny: Tiny, by_path: bool
) -> None:
    for path in tiny.root.glob("*.*"):
        path.unlink()
    change = "" if by_path else "import sys; sys.path[:0] = ['.', 'lib']\n"
    tiny.write("runs/fit.py", change + DEEP)
    tiny.write("runs/beside.py", "LESS = -1\n")
    tiny.write("nets/width.py", "WIDTH = 2\n")
    tiny.write("lib/extra.py", "MORE = 3\n")
    variables = {"PYTHONPATH": ".:lib"} if by_path else {}
    ran = tiny.run("init", "--", sys.executable, "runs/fit.py", **variables)
    assert ran.code == 0, ran.err
    assert 'env = { PYTHONPATH = ".:lib" }' in (tiny.root / "recipe.toml").read_text()
    assert "packages = []" in (tiny.root / "recipe.toml").read_text()
    assert tiny.build()["fit"]["metrics"] == {"width": 4}


OWN = """\
import sys
sys.path.insert(0, "..")
from wavelib import filters
open("model.txt", "w").write(str(filters.WIDTH))
"""


@pytest.mark.parametrize("script", [OWN, OWN.partition('"..")')[2]], ids=["text", "PYTHONPATH"])
@pytest.mark.parametrize("times", [1, 2])
def test_a_module_above_the_recipe_is_said_with_the_command_that_has_it_below(
    tmp_path: Path, script: str, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    folder = tmp_path / "my experiments"
    write(tmp_path, wavelib__filters_py="WIDTH = 3\n")
    write(folder, train_py=script, rows_txt="")
    monkeypatch.setenv("PYTHONPATH", "..")
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    words = (sys.executable, "train.py", "--rows=rows.txt", "rows.txt", "3")
    for _ in range(times):  # the second time Python has its own compiled copy
        with pytest.raises(ModelbuildError) as caught:
            watch(folder, *words)
    assert str(caught.value) == (
        f"train.py imports wavelib (../wavelib): outside of the recipe's folder, {folder}\n"
        "A recipe's code lies at or below its folder. No recipe was written; run it from above, "
        "where paths\nthat the script itself has are seen from there:\n"
        f"  cd {tmp_path}\n"
        f"  PYTHONPATH=. modelbuild init -- {sys.executable} 'my experiments/train.py' "
        "'--rows=my experiments/rows.txt' 'my experiments/rows.txt' 3"
    )
    assert not (folder / "recipe.toml").exists()
    monkeypatch.setenv("PYTHONPATH", ".")
    report = watch(tmp_path, sys.executable, "my experiments/train.py")
    assert report.recipe.environment.packages == ()
    assert report.recipe.stages["train"].env == {"PYTHONPATH": "."}
    assert "wavelib/filters.py" in report.recipe.code


def test_a_module_from_outside_of_the_workspace_is_no_strangers_package(
    folder: Path, tmp_path: Path
) -> None:
    write(tmp_path, wavelib__filters_py="WIDTH = 3\n")
    write(folder, train_py=OWN)
    report = python(folder, "train.py")
    assert report.recipe.environment.packages == ()
    assert report.notes[0] == (
        "train.py imports wavelib from outside of the workspace: a recipe's code lies at or below "
        "its folder. Copy it there, or name in `packages` what brings it."
    )


FOLDERS = """\
import json, os
os.makedirs("models/best")
os.makedirs("report")
json.dump({"loss": 1}, open("models/metrics.json", "w"))
open("models/best/model.txt", "w").write("1")
open("report/all.txt", "w").write("1")
open("pkg/log.txt", "w").write(str(__import__("pkg.width").width.WIDTH))
"""


def test_folders_that_were_there_before_are_there_in_the_copy(tiny: Tiny) -> None:
    for path in tiny.root.glob("*.*"):
        path.unlink()
    tiny.write("train.py", FOLDERS)
    tiny.write("pkg/width.py", "WIDTH = 1\n")
    tiny.write("models/.gitkeep", "")
    assert tiny.run("init", "--", sys.executable, "train.py").code == 0
    run = (tiny.root / "recipe.toml").read_text()
    assert ' && mkdir -p models && \\"$@\\" && ' in run
    assert tiny.build()["train"]["metrics"] == {"loss": 1}


# -- to the end ------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", [OPTIONS, FIXED], ids=["options", "fixed places"])
@pytest.mark.parametrize("isolation", ["full", "none"])
def test_an_observed_command_builds_as_it_is(tiny: Tiny, script: str, isolation: str) -> None:
    (tiny.root / "recipe.toml").unlink()
    (tiny.root / "evaluate.py").unlink()
    tiny.write("train.py", script)
    tiny.write("layers.py", "WIDTH = 2\n")
    tiny.write("config.json", '{"width": 3}')
    tiny.write("parts/a.csv", "1")
    tiny.write("words list.txt", "a b")
    ran = tiny.run("init", "--", sys.executable, "train.py")
    assert ran.code == 0, ran.err
    assert ran.out == "recipe.toml\n"
    stage = tiny.build("--isolation", isolation)["train"]
    assert stage["metrics"]
    if isolation == "full":
        assert tiny.run("verify", "--rebuild").code == 0
