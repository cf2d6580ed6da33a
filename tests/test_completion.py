"""`modelbuild completion`, in the shells that are here."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from modelbuild.cli.main import COMMANDS


def script(shell: str) -> str:
    command = [sys.executable, "-m", "modelbuild", "completion", shell]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def in_bash() -> str:
    return script("bash")


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["ver"], ["verify"]),
        (["verify", "--reb"], ["--rebuild"]),
        (["build", "--isolation", ""], ["full", "none"]),
        (["completion", ""], ["bash", "zsh", "fish"]),
        (["build", "recipe."], ["recipe.toml"]),
        (["report", "--output", "recipe."], ["recipe.toml"]),
        (["git", "ins"], ["install"]),
    ],
)
def test_bash_completes(
    in_bash: str, words: list[str], completed: list[str], tmp_path: Path
) -> None:
    (tmp_path / "recipe.toml").touch()
    program = (
        f'{in_bash}\nCOMP_WORDS=(modelbuild "$@"); COMP_CWORD=$#\n'
        '_shtab_modelbuild modelbuild "${!#}"\n'
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", program, "bash", *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.stdout.split(), done.stderr) == (completed, "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_command_is_completed_in_what_the_shell_can_read(shell: str, tmp_path: Path) -> None:
    text = script(shell)
    assert [name for name in COMMANDS if name not in text] == []
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "completion").write_text(text)
    subprocess.run([shell, "-n", tmp_path / "completion"], check=True)
