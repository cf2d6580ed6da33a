"""`modelbuild export --mlflow`: to a real tracking server."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest
from conftest import Ran, Tiny

ROOT = Path(__file__).parent.parent


def test_without_mlflow_the_message_says_how_to_get_it(tiny: Tiny) -> None:
    tiny.build()
    tiny.write("../without/mlflow.py", "raise ImportError\n")
    search = str(tiny.root.parent / "without")
    ran = tiny.run("export", "tiny", "--mlflow", "sqlite:///x.db", PYTHONPATH=search)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == (
        "error: MLflow is not installed\n"
        f"It belongs beside modelbuild: {sys.executable} -m pip install mlflow-skinny\n"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tiny"], "name either a folder or --mlflow URI"),
        (["tiny", "out", "--mlflow", "x"], "name either a folder or --mlflow URI"),
        (["tiny", "out", "--experiment", "x"], "--experiment needs --mlflow"),
    ],
)
def test_a_wrong_command_line_is_said(tiny: Tiny, words: list[str], message: str) -> None:
    ran = tiny.run("export", *words)
    assert ran.code == 2
    assert message in ran.err


# -- a real server ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with MLflow's server and with modelbuild."""
    prefix = tmp_path_factory.mktemp("mlflow") / "venv"
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv"
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, str(prefix)], check=True)
    install = [uv, "pip", "install", "-q", "--python", str(prefix / "bin" / "python")]
    done = subprocess.run([*install, "mlflow>=3.1", "-e", str(ROOT)], check=False)
    if done.returncode:
        pytest.skip("MLflow can't be installed here")
    return prefix / "bin" / "python"


@pytest.fixture(scope="module")
def server(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [python, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/runs.db"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            wait_for(f"http://127.0.0.1:{port}/health", folder / "log")
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, 15)
            process.wait()


def wait_for(address: str, log: Path) -> None:
    for _ in range(600):
        try:
            with urlopen(address):
                return
        except (URLError, ConnectionError):
            time.sleep(0.2)
    raise AssertionError(log.read_text())


def ask(server: str, path: str, **fields: object) -> dict:
    request = Request(
        f"{server}/api/2.0/mlflow/{path}",
        data=json.dumps(fields).encode() if fields else None,
        headers={"Content-Type": "application/json"},
    )
    with urlopen(request) as response:
        return json.load(response)


def export(tiny: Tiny, python: Path, *words: str) -> Ran:
    done = subprocess.run(
        [python, "-m", "modelbuild", "export", *words],
        cwd=tiny.root,
        env={**os.environ, **tiny.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Ran(done.returncode, done.stdout, done.stderr)


@pytest.mark.network
@pytest.mark.slow
def test_an_output_is_logged_once_with_all_that_is_known(
    tiny: Tiny, python: Path, server: str
) -> None:
    tiny.replace("recipe.toml", 'metrics = "metrics.json"\n\n[stages.evaluate]', CURVES)
    with open(tiny.root / "train.py", "a") as script:
        script.write(LOG)
    train = tiny.build()["train"]
    commit = committed(tiny.root)
    first = export(tiny, python, "tiny:train", "--mlflow", server)
    assert first.code == 0, first.err
    run = ask(server, f"runs/get?run_id={first.out.strip()}")["run"]
    data = run["data"]
    assert run["info"]["status"] == "FINISHED"
    assert run["info"]["run_name"] == "tiny:train"
    params = {each["key"]: each["value"] for each in data["params"]}
    assert params == {
        "lr": "0.5",
        "seed": "7",
        "hardware.threads": "1",
        "hardware.cpu": "x86-64-v3",
    }
    metrics = {each["key"]: each["value"] for each in data["metrics"]}
    assert metrics["loss"] == train["metrics"]["loss"]
    assert metrics["train/loss"] == 0.25
    tags = {each["key"]: each["value"] for each in data["tags"]}
    assert tags["modelbuild.output"] == train["output"]
    assert tags["modelbuild.derivation"] == train["derivation"]
    assert tags["modelbuild.class"] == train["numeric_class"]
    assert tags["modelbuild.level"] == "bitwise"
    assert tags["mlflow.source.git.commit"] == commit
    history = ask(server, f"metrics/get-history?run_id={first.out.strip()}&metric_key=train/loss")
    assert [(p.get("step", 0), p["value"]) for p in history["metrics"]] == [(1, 0.5), (2, 0.25)]
    files = ask(server, f"artifacts/list?run_id={first.out.strip()}")["files"]
    assert {each["path"] for each in files} == {"metrics.json", "model.json", "train.jsonl"}

    again = export(tiny, python, "tiny:train", "--mlflow", server)
    assert (again.code, again.out) == (0, first.out)
    assert again.err == "this output was logged before\n"
    elsewhere = export(tiny, python, "tiny:train", "--mlflow", server, "--experiment", "other")
    assert elsewhere.out not in ("", first.out)


CURVES = """\
metrics = "metrics.json"
curves = "train.jsonl"

[stages.evaluate]"""

LOG = """
with open(sys.argv[3] + "/train.jsonl", "w") as log:
    log.write('{"step": 1, "loss": 0.5}\\n{"step": 2, "loss": 0.25}\\n')
"""


def committed(root: Path) -> str:
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(root)]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"]):
        subprocess.run([*git, *words], check=True)
    return subprocess.check_output([*git, "rev-parse", "HEAD"], text=True).strip()


@pytest.mark.network
@pytest.mark.slow
def test_a_login_is_not_shown(tiny: Tiny, python: Path) -> None:
    tiny.build()
    ran = export(tiny, python, "tiny", "--mlflow", "http://me:secret@127.0.0.1:9/?token=hidden")
    assert ran.code == 1
    assert "secret" not in ran.out + ran.err
    assert "hidden" not in ran.out + ran.err
    assert ran.err.startswith(
        "error: tiny:evaluate could not be logged to http://127.0.0.1:9/\n  because: "
    )
