"""A workspace with commits, runs and logs, for tests of the page of `modelbuild report`."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from conftest import RECIPE, TRAIN, Tiny, make_tiny, share_interpreter

EVIL = '</script><img src=x onerror="alert(1)">'
LOGS = """
log = open(sys.argv[3] + "/train.jsonl", "w")
for step in range(2000):
    loss = weight / (step + 1) + (40 if step == 1234 else 0)
    record = {"step": step, "train_loss": loss, "val_loss": loss + 1, "ev<il> & \\u202e": step % 7}
    log.write(json.dumps(record) + "\\n")
log.write('{"step": 2000, "train_lo')
with open(sys.argv[3] + "/norms.csv", "w") as norms:
    norms.write("epoch,norm\\n0,1\\n1,nan\\n2,0.5\\n")
"""


def git(workspace: Tiny, *arguments: str) -> None:
    who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    subprocess.run(["git", *who, *arguments], cwd=workspace.root, check=True, capture_output=True)


def make_reported(root: Path, interpreter: Path) -> Tiny:
    """Four commits, runs with several settings, and names that would be code."""
    store = root / "store"
    share_interpreter(store, interpreter)
    workspace = make_tiny(root / "workspace", MODELBUILD_STORE=str(store))
    name = f'name = "tiny"\ndescription = "{EVIL.replace(chr(34), "")}"'
    curves = '"{params.lr}", "{out}"]\ncurves = ["train.jsonl", "norms.csv", "absent.csv"]'
    text = RECIPE.replace('name = "tiny"', name).replace('"{params.lr}", "{out}"]', curves)
    workspace.write("recipe.toml", text)
    workspace.write("train.py", TRAIN + LOGS)
    git(workspace, "init", "-q")
    for lr, subject in (("0.5", "first"), ("0.25", EVIL), ("0.125", "third")):
        workspace.write(
            "recipe.toml",
            re.sub(r"lr = .*", f"lr = {lr}", (workspace.root / "recipe.toml").read_text()),
        )
        workspace.build()
        git(workspace, "add", "model.lock", "recipe.toml", "train.py")
        git(workspace, "commit", "-qm", subject)
    workspace.build("--set", "params.lr=2.0")
    assert workspace.run("verify", "--seeds", "3").code == 0
    git(workspace, "commit", "-qam", "seeds")
    return workspace
