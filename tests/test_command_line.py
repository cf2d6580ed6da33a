"""What every command keeps to: help, spelling, exit codes, streams, start-up time."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import subprocess
import sys
import time
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest
from conftest import Ran, Tiny

from modelbuild.cli.arguments import Parser
from modelbuild.cli.main import COMMANDS
from modelbuild.store.store import Store

PAGE = (Path(__file__).parent.parent / "docs" / "commands.md").read_text()
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
HEAVY = (
    *("rich", "tomlkit", "filelock", "packaging", "uv", "subprocess", "urllib.request"),
    *("concurrent.futures", "importlib.metadata", "asyncio", "ssl"),
)


def command(*arguments: str, folder: Path | None = None, **variables: str) -> Ran:
    done = subprocess.run(
        [sys.executable, "-m", "modelbuild", *arguments],
        cwd=folder,
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Ran(done.returncode, done.stdout, done.stderr)


def help_of(name: str) -> str:
    ran = command(name, "--help")
    assert (ran.code, ran.err) == (0, "")
    return ran.out


def section(name: str) -> str:
    """The part of docs/commands.md about one command."""
    return PAGE.partition(f"## modelbuild {name}\n")[2].partition("\n## ")[0]


def documented_json(name: str) -> dict:
    return json.loads(re.search(r"```json\n(.*?)```", section(name), re.DOTALL)[1])


# -- help, and the page ----------------------------------------------------------------------------


class ParsedError(Exception):
    """The command line was right; what it asks for is not done."""


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example_that_parses(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = help_of(name)
    program, own, *words = shlex.split(text.rpartition("example:\n")[2])
    assert (program, own) == ("modelbuild", name)

    parse = Parser.parse

    def stop(parser: Parser, arguments: list[str]) -> None:
        parse(parser, arguments)
        raise ParsedError

    monkeypatch.setattr(Parser, "parse", stop)
    with pytest.raises(ParsedError):
        import_module(f"modelbuild.cli.{name}_command").run(words)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_page_has_every_option_and_no_other(name: str) -> None:
    options = help_of(name).partition("\noptions:")[2].partition("\nexample:")[0]
    known = {line.split()[0] for line in options.splitlines() if line.startswith("  --")}
    usage, _, rest = section(name).lstrip().partition("\n\n")
    assert set(OPTION.findall(usage)) == known
    assert set(re.findall(r"^\| `(--[a-z-]+)`", rest, re.MULTILINE)) == known


def test_the_page_has_every_command_in_the_order_of_the_help() -> None:
    assert re.findall(r"^## modelbuild (\w+)$", PAGE, re.MULTILINE) == list(COMMANDS)


def test_help_without_a_command_lists_the_commands() -> None:
    ran = command("--help")
    assert ran.code == 0
    assert [line.split()[0] for line in ran.out.splitlines() if line.startswith("  ")] == list(
        COMMANDS
    )
    nothing = command()
    assert (nothing.code, nothing.out, nothing.err) == (2, "", ran.out)


def test_version() -> None:
    assert command("--version") == Ran(0, f"modelbuild {version('modelbuild')}\n", "")


REQUIRED = {"export": ["a", "b"], "git": ["install"], "completion": ["bash"]}
ONE_TARGET = ("log", "why", "history", "show", "compare")


# -- mistakes --------------------------------------------------------------------------------------


def test_an_unknown_command_names_the_nearest() -> None:
    assert command("bild") == Ran(
        2, "", "error: there is no command 'bild'\nDid you mean: modelbuild build\n"
    )
    assert command("frobnicate") == Ran(
        2, "", "error: there is no command 'frobnicate'\nmodelbuild --help lists them.\n"
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unknown_option_is_exit_code_2(name: str) -> None:
    required = ["a"] if name in ONE_TARGET else REQUIRED.get(name, [])
    ran = command(name, *required, "--frobnicate")
    assert ran.code == 2
    assert ran.out == ""
    assert ran.err == (
        f"error: modelbuild {name}: there is no option --frobnicate\n"
        f"modelbuild {name} --help explains it.\n"
    )


def test_an_unknown_option_names_the_nearest() -> None:
    assert command("lock", "--chek") == Ran(
        2, "", "error: modelbuild lock: there is no option --chek\nDid you mean: --check\n"
    )


def test_an_abbreviated_option_is_unknown() -> None:
    assert command("build", "--dry").code == 2


def test_an_error_is_a_record_too(tmp_path: Path) -> None:
    ran = command("build", "nowhere.toml", "--json", folder=tmp_path)
    message = (
        "there is no recipe at nowhere.toml\n"
        "To write one for the scripts in a folder: modelbuild init FOLDER"
    )
    assert ran.code == 2
    assert ran.json == {"error": {"exit_code": 2, "message": message}}
    assert ran.err == f"error: {message}\n"


@pytest.mark.parametrize("arguments", [["build"], ["lock"], ["verify"], ["log", "tiny"]])
def test_without_a_recipe_every_command_ends_with_the_same_code(
    tmp_path: Path, arguments: list[str]
) -> None:
    (tmp_path / ".git").mkdir()
    ran = command(*arguments, folder=tmp_path)
    assert ran.code == 2
    assert "recipe" in ran.err


def test_a_recipe_in_a_folder_above_is_named(tiny: Tiny) -> None:
    (tiny.root / "sub").mkdir()
    for arguments in (["build"], ["build", "."]):
        place = "." if arguments[1:] else "recipe.toml"
        assert command(*arguments, folder=tiny.root / "sub") == Ran(
            2,
            "",
            f"error: there is no recipe at {place}\n"
            "There is one in a folder above: ../recipe.toml\n",
        )


def test_build_takes_a_recipes_name(tiny: Tiny) -> None:
    tiny.build()
    ran = tiny.run("build", "tiny")
    assert (ran.code, ran.out) == (0, tiny.run("build").out)
    assert tiny.run("build", "tini").err == (
        "error: there is no recipe 'tini'\n"
        "  wanted: a recipe file, a folder with recipe.toml, or a locked name\n"
        "Locked here: tiny\n"
    )


def test_a_lock_that_is_gone_is_said_to_be(tiny: Tiny) -> None:
    assert tiny.run("build", "--locked").err == (
        "error: model.lock is out of date\n"
        "  tiny: not locked yet\n"
        "To bring it up to date: modelbuild lock\n"
    )


# -- streams ---------------------------------------------------------------------------------------


def test_only_the_result_goes_to_stdout(tiny: Tiny, store: Store) -> None:
    ran = tiny.run("build")
    assert re.fullmatch(rf"{re.escape(str(store.root))}/objects/\w+-tiny-evaluate\n", ran.out)
    assert "locked tiny" in ran.err
    assert tiny.run("lock").out == ""
    path = tiny.run("log", "tiny:train", "--path")
    assert Path(path.out.rstrip("\n")).read_text() == "training on 3\n"
    assert path.err == ""


def test_json_alone_is_on_stdout_and_has_the_documented_keys(tiny: Tiny) -> None:
    assert keys(tiny.run("lock", "--json").json) == keys(documented_json("lock"))
    assert keys(tiny.run("build", "--json").json) == keys(documented_json("build"))
    verified = tiny.run("verify", "--json")
    assert verified.err == ""
    assert keys(verified.json) == keys(documented_json("verify"))
    (tiny.root / "recipe.toml").unlink()
    written = tiny.run("init", "--script", "train.py", "--json").json
    assert keys(written) == keys(documented_json("init"))


def test_doctor_has_the_documented_record(store: Store) -> None:
    report = command("doctor", "--json").json
    assert keys(report) == keys(documented_json("doctor"))
    (documented,) = documented_json("doctor")["findings"]
    assert all(finding.keys() == documented.keys() for finding in report["findings"])


def keys(record: object) -> object:
    """The keys at every level; of recipes and stages one stands for all."""
    if not isinstance(record, dict):
        return None
    found = {}
    for key, value in record.items():
        if key in ("recipes", "stages") and isinstance(value, dict):
            found[key] = keys(next(iter(value.values())))
        elif key != "metrics":
            found[key] = keys(value)
    return found


def test_quiet_prints_nothing_where_all_is_well(tiny: Tiny) -> None:
    assert tiny.run("lock", "--quiet") == Ran(0, "", "")
    tiny.build()
    assert tiny.run("verify", "--quiet") == Ran(0, "", "")
    (tiny.root / "recipe.toml").unlink()
    assert tiny.run("init", "--script", "train.py", "--quiet") == Ran(0, "", "")


def test_a_quiet_build_prints_only_where_its_output_is(tiny: Tiny) -> None:
    ran = tiny.run("build", "--quiet")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.endswith("-tiny-evaluate\n")
    assert ran.out.count("\n") == 1


def test_quiet_still_prints_errors(tiny: Tiny) -> None:
    tiny.replace("recipe.toml", "schema = 1", "schema = 2")
    for name in ("lock", "build"):
        ran = tiny.run(name, "--quiet")
        assert ran.code == 3
        assert ran.err.startswith("error: recipe.toml:1: the recipe has schema 2\n")


def test_no_escape_sequences_where_stderr_is_no_terminal(tiny: Tiny) -> None:
    assert "\x1b" not in tiny.run("build", FORCE_COLOR="").err


def test_no_color_is_honoured_on_a_terminal(tiny: Tiny) -> None:
    tiny.replace("train.py", "import json", "import time; time.sleep(0.5)\nimport json")
    colour = re.compile(rb"\x1b\[(?:\d+;)*[349]\d[\d;]*m")
    drawn = on_a_terminal(tiny, "build", "--set", "seed=1")
    assert b"tiny:train" in drawn
    assert colour.search(drawn)
    plain = on_a_terminal(tiny, "build", "--set", "seed=2", NO_COLOR="1")
    assert b"tiny:train" in plain
    assert not colour.search(plain)


def on_a_terminal(tiny: Tiny, *arguments: str, **variables: str) -> bytes:
    """What a command draws on a terminal."""
    ours, theirs = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    environment |= {"TERM": "xterm-256color", **variables}
    process = subprocess.Popen(
        tiny.command(*arguments),
        cwd=tiny.root,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    drawn = b""
    with open(ours, "rb", buffering=0) as terminal:
        try:
            while part := terminal.read(65536):
                drawn += part
        except OSError:  # Linux says so where the other side is closed
            pass
    assert process.wait() == 0, drawn
    return drawn


@pytest.mark.parametrize("arguments", ["--help", "build --help", "doctor", "bild --json"])
def test_a_reader_that_stops_reading_is_no_traceback(arguments: str, store: Store) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [sys.executable, "-m", "modelbuild", *arguments.split()],
        stdout=writing,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
        check=False,
    )
    os.close(writing)
    assert "BrokenPipe" not in done.stderr
    assert done.returncode in (1, 2)


def test_a_full_disk_under_stdout_is_an_error_without_a_traceback(store: Store) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "modelbuild", "doctor", "--json"],
            stdout=full,
            stderr=subprocess.PIPE,
            env={k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"},
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("error: No space left on device\n")
    assert "Exception" not in done.stderr


def test_what_follows_two_dashes_is_not_ours(tmp_path: Path) -> None:
    ran = command("shell", "nowhere", "--", "tool", "--json", folder=tmp_path)
    assert (ran.code, ran.out) == (2, "")


# -- start-up --------------------------------------------------------------------------------------


def imported(tiny: Tiny, program: str) -> set[str]:
    """The modules that a program has loaded in the end."""
    text = f"import sys\n{program}\nprint(*sys.modules, sep='\\n', file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", text],
        cwd=tiny.root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines())


@pytest.mark.parametrize("module", ["modelbuild.cli.main", "modelbuild.errors"])
def test_an_interrupt_while_the_program_is_loaded_is_said(module: str) -> None:
    """A real Ctrl-C comes whenever it likes; this one comes with an import."""
    program = (
        "import runpy, sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}:\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "runpy.run_module('modelbuild', run_name='__main__')\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_a_page_for_a_folder_that_there_is_not(tiny: Tiny) -> None:
    ran = tiny.run("report", "-o", "nowhere/page.html")
    assert (ran.code, ran.out, ran.err) == (
        2,
        "",
        "error: there is no folder nowhere to write page.html to\nTo make it: mkdir -p nowhere\n",
    )


def test_the_command_line_alone_imports_next_to_nothing(tiny: Tiny) -> None:
    found = imported(tiny, "import modelbuild.cli.main")
    assert found.isdisjoint((*HEAVY, "argparse", "json", "blake3"))
    ours = {name for name in found if name.startswith("modelbuild.")}
    assert ours - {"modelbuild.build", "modelbuild.verify"} == {
        "modelbuild.cli",
        "modelbuild.cli.main",
        "modelbuild.errors",
    }


def test_a_build_with_nothing_to_do_imports_nothing_heavy(tiny: Tiny, store: Store) -> None:
    tiny.build()
    program = "from modelbuild.cli.main import main; assert main(['build']) == 0"
    checked = imported(tiny, program)
    assert checked.isdisjoint(HEAVY)
    assert "modelbuild.build.build" in checked
    time.sleep(2.1)  # a file that changed a moment ago could change again unseen
    imported(tiny, program)
    assert list((store.root / "unchanged").iterdir())
    answered = imported(tiny, program)
    assert answered.isdisjoint((*HEAVY, "modelbuild.build.build", "modelbuild.spec.recipe"))
