"""Bad input and bad luck: a clear error, nothing lost, no wrong output kept."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from conftest import Ran, Tiny, how
from test_build import start, wait_until_printed

from modelbuild.store.store import Store
from modelbuild.store.tree import scan_tree

UNSHARE = ["unshare", "--user", "--map-root-user", "--mount"]
can_mount = shutil.which("unshare") is not None and (
    subprocess.run(
        [*UNSHARE, "mount", "-t", "tmpfs", "none", "/tmp"], capture_output=True, check=False
    ).returncode
    == 0
)
needs_mounts = pytest.mark.skipif(not can_mount, reason="needs user namespaces to mount in")


def in_namespace(tiny: Tiny, script: str) -> Ran:
    """Run a shell script that may mount, with `$MODELBUILD` as the command."""
    done = subprocess.run(
        [*UNSHARE, "sh", "-ec", script],
        cwd=tiny.root,
        env={**os.environ, "MODELBUILD": " ".join(tiny.command())},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "\nTraceback" not in f"\n{done.stderr}", done.stderr
    return Ran(done.returncode, done.stdout, done.stderr)


def train_script(tiny: Tiny, code: str) -> None:
    tiny.write("train.py", f"import json, os, sys\nout = sys.argv[3]\n{code}\n")


WRITE_MODEL = """
json.dump({"weight": 1}, open(out + "/model.json", "w"))
json.dump({"loss": 1}, open(out + "/metrics.json", "w"))
"""


def test_a_failed_stage_shows_what_it_printed_and_keeps_its_log(tiny: Tiny) -> None:
    train_script(tiny, "print('hello'); sys.exit(3)")
    ran = tiny.run("build")
    assert ran.code == 6
    assert ran.err.endswith(
        "error: recipe.toml:23: stage 'train' failed\n"
        "  exit code: 3\n"
        "  printed:   hello\n"
        "To read all that it printed: modelbuild log tiny:train\n"
    )
    assert tiny.run("log", "tiny:train").out == "hello\n"


def test_keep_failed_keeps_what_the_stage_left(tiny: Tiny, store: Store) -> None:
    train_script(tiny, "open(out + '/half', 'w').write('half'); sys.exit(1)")
    assert tiny.run("build", "--keep-failed").code == 6
    (kept,) = (store.root / "failed").iterdir()
    assert (kept / "out" / "half").read_text() == "half"
    assert (kept / "src" / "train.py").exists()


def test_an_undeclared_file_is_absent_and_the_message_names_the_line(tiny: Tiny) -> None:
    tiny.write("secret.txt", "42")
    train_script(tiny, "open('secret.txt')")
    ran = tiny.run("build")
    assert ran.code == 6
    explained = ran.err.rpartition("FileNotFoundError")[2]
    assert "secret.txt" in explained
    assert '[data.secret]\npath = "secret.txt"' in explained.replace("  ", "")


def test_a_stage_that_writes_nothing_fails(tiny: Tiny) -> None:
    train_script(tiny, "pass")
    ran = tiny.run("build")
    assert ran.code == 6
    assert ran.err.endswith(
        "error: recipe.toml:23: stage 'train' wrote no output\n"
        "  wanted: at least one file in {out}\n"
        "  found:  an empty folder\n"
        "Pass {out} to the command, or let it write below $MODELBUILD_OUT.\n"
    )


def test_a_stage_without_its_metrics_file_fails(tiny: Tiny) -> None:
    train_script(tiny, "open(out + '/model.json', 'w').write('{}')")
    ran = tiny.run("build")
    assert ran.code == 6
    assert ran.err.endswith(
        "error: recipe.toml:24: stage 'train' did not write its metrics file\n"
        "  wanted: metrics.json\n"
        "  found:  model.json\n"
    )


def test_metrics_that_are_no_json_fail(tiny: Tiny) -> None:
    train_script(tiny, WRITE_MODEL + "open(out + '/metrics.json', 'w').write('loss=1')")
    ran = tiny.run("build")
    assert ran.code == 6
    assert "the metrics file of stage 'train' can't be read" in ran.err


def test_a_link_out_of_the_output_is_an_error(tiny: Tiny, store: Store) -> None:
    train_script(tiny, WRITE_MODEL + "os.symlink('/etc/passwd', out + '/users')")
    ran = tiny.run("build")
    assert ran.code == 1
    assert "users" in ran.err
    assert not (store.root / "realisations").exists()


def test_a_daemon_is_killed_and_reported(tiny: Tiny) -> None:
    train_script(
        tiny,
        WRITE_MODEL
        + "import subprocess\n"
        + "subprocess.Popen(['sleep', '1234'], start_new_session=True)",
    )
    ran = tiny.run("build")
    assert ran.code == 0, ran.err
    assert "note: killed after the stage ended: sleep 1234" in ran.err


def test_more_than_tmp_holds_fails_the_stage_and_nothing_else(tiny: Tiny) -> None:
    train_script(
        tiny,
        "import shutil\n"
        "with open('/tmp/big', 'wb') as file:\n"
        "    os.posix_fallocate(file.fileno(), 0, shutil.disk_usage('/tmp').total + 1)",
    )
    ran = tiny.run("build")
    assert ran.code == 6
    assert "No space left on device" in ran.err


@pytest.mark.slow
def test_a_gigabyte_of_output_is_kept_in_part(tiny: Tiny) -> None:
    train_script(
        tiny,
        "line = b'x' * 1023 + b'\\n'\n"
        "for _ in range(1024):\n    sys.stdout.buffer.write(line * 1024)\n"
        "print('the end')\n" + WRITE_MODEL,
    )
    assert tiny.run("build").code == 0
    log = Path(tiny.run("log", "--path", "tiny:train").out.strip())
    assert log.stat().st_size < 50 << 20
    assert b"bytes are not kept ...]" in log.read_bytes()
    assert log.read_bytes().endswith(b"the end\n")


def test_file_names_of_every_kind_come_through(tiny: Tiny) -> None:
    train_script(
        tiny,
        WRITE_MODEL
        + "for name in [b'with space', b'new\\nline', b'not-utf8-\\xff', b'-dash']:\n"
        + "    open(os.fsencode(out) + b'/' + name, 'wb').write(name)",
    )
    path = os.fsencode(tiny.build()["train"]["path"])
    for name in (b"with space", b"new\nline", b"not-utf8-\xff", b"-dash"):
        with open(path + b"/" + name, "rb") as file:
            assert file.read() == name
    assert tiny.run("verify").code == 0


UNTIL_DATA_CHANGED = """
data = sys.argv[1]
content, times = open(data).read(), os.stat(data).st_mtime_ns
print("it is read")
while open(data).read() == content or os.stat(data).st_mtime_ns != times:
    pass
"""


def test_data_that_changes_during_the_build_is_noticed(tiny: Tiny, store: Store) -> None:
    train_script(tiny, UNTIL_DATA_CHANGED + WRITE_MODEL)
    tiny.run("lock")
    command = start(tiny, "build")
    wait_until_printed(store)
    status = (tiny.root / "numbers.txt").stat()
    (tiny.root / "numbers.txt").write_text("9\n9\n9\n")
    os.utime(tiny.root / "numbers.txt", ns=(status.st_atime_ns, status.st_mtime_ns))
    _, err = command.communicate(timeout=60)
    assert command.returncode == 5
    assert "changed while the stage ran" in err
    assert not (store.root / "realisations").exists()


def test_an_output_removed_by_hand_is_built_again(tiny: Tiny) -> None:
    output = Path(tiny.build()["train"]["path"])
    output.chmod(0o755)
    shutil.rmtree(output)
    verdict = tiny.run("verify", "--json").json["recipes"]["tiny"]["stages"]["train"]
    assert (verdict["store"], verdict["claim"]) == ("absent", "unchecked")
    assert verdict["problems"] == []
    assert how(tiny.build()) == {"train": "built", "evaluate": "valid"}


def test_a_flipped_byte_in_an_output_is_found_and_mended(tiny: Tiny, store: Store) -> None:
    output = Path(tiny.build()["train"]["path"])
    flip(output / "model.json")
    ran = tiny.run("verify")
    assert ran.code == 5
    assert "digest mismatch in the store: the output of tiny:train was altered" in ran.err
    assert tiny.run("verify", "--rebuild").code == 5  # reported once more, and set aside
    assert len(list((store.root / "corrupt").iterdir())) == 1
    ran = tiny.run("verify")
    assert ran.code == 0, ran.err


def test_a_truncated_record_is_not_believed(tiny: Tiny, store: Store) -> None:
    tiny.build()
    records = sorted((store.root / "realisations").glob("*/*.json"))
    assert len(records) == 2
    for record in records:
        record.write_bytes(record.read_bytes()[:200])
    assert (
        f"tiny:train: a damaged record is not used: {store.root}"
        in tiny.run("build", "--dry-run").err
    )
    assert how(tiny.build()) == {"train": "built", "evaluate": "built"}


def test_an_altered_record_is_not_believed(tiny: Tiny, store: Store) -> None:
    tiny.build()
    for record in (store.root / "realisations").glob("*/*.json"):
        document = json.loads(record.read_text())
        document["record"]["metrics"] = {"loss": 0}
        record.write_text(json.dumps(document))
    assert how(tiny.build()) == {"train": "built", "evaluate": "built"}


def test_interrupted_twice_is_still_clean(tiny: Tiny, store: Store) -> None:
    train_script(tiny, "import time\nprint('started')\ntime.sleep(60)")
    tiny.run("lock")
    command = subprocess.Popen(
        tiny.command("build"), cwd=tiny.root, stderr=subprocess.PIPE, text=True
    )
    wait_until_printed(store)
    command.send_signal(signal.SIGINT)
    time.sleep(0.02)
    command.send_signal(signal.SIGINT)
    _, err = command.communicate(timeout=30)
    assert command.returncode == 130
    assert "Traceback" not in err
    train_script(tiny, WRITE_MODEL)
    assert how(tiny.build())["train"] == "built"
    assert list((store.root / "tmp").iterdir()) == []


@needs_mounts
def test_a_full_disk_is_an_error_and_the_store_stays_valid(tiny: Tiny, tmp_path: Path) -> None:
    train_script(tiny, WRITE_MODEL + "open(out + '/big', 'wb').write(bytes(30 << 20))")
    tiny.run("lock")
    store = tmp_path / "store"
    ran = in_namespace(
        tiny,
        f"mkdir small && mount -t tmpfs -o size=40m none small && cp -a {store}/. small/\n"
        "export MODELBUILD_STORE=$PWD/small\n"
        "code=0; $MODELBUILD build || code=$?\n"
        "ls small/objects; ls small/realisations 2>/dev/null || true\n"
        "exit $code",
    )
    assert ran.code == 1, ran.err
    assert "No space left on device" in ran.err
    assert "-tiny-train" not in ran.out


@needs_mounts
def test_a_read_only_store_serves_what_it_has_and_refuses_the_rest(
    tiny: Tiny, tmp_path: Path
) -> None:
    tiny.build()
    store = tmp_path / "store"
    script = (
        f"mount --bind {store} {store} && mount -o remount,ro,bind {store} && "
        "$MODELBUILD build --no-link"
    )
    assert in_namespace(tiny, script).code == 0
    tiny.replace("recipe.toml", "lr = 0.5", "lr = 0.25")
    ran = in_namespace(tiny, script)
    assert ran.code == 1
    assert "Read-only file system" in ran.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_store_without_permission_says_so(tiny: Tiny, tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    ran = tiny.run("build", MODELBUILD_STORE=str(folder / "store"))
    assert ran.code == 1
    assert "can't be written" in ran.err


MOMENTS = {
    "the stage runs": "logs/*/tiny/train/*.log",
    "it writes": "tmp/*/out/0",
    "its output is copied": "tmp/*/fresh/0",
    "its output is an object": "objects/*-tiny-train",
}


def test_killed_at_any_moment_the_store_is_valid_and_the_next_build_succeeds(
    tiny: Tiny, store: Store
) -> None:
    many = "for n in range(300):\n    open(f'{out}/{n}', 'w').write(sys.argv[2])\n"
    train_script(tiny, many + WRITE_MODEL)
    for number, (moment, pattern) in enumerate(MOMENTS.items()):
        tiny.replace("recipe.toml", f"lr = {number}.5", f"lr = {number + 1}.5")
        tiny.run("lock")
        before = set(store.root.glob(pattern))
        command = start(tiny, "build")
        while set(store.root.glob(pattern)) <= before:
            assert command.poll() is None, f"not seen: {moment}"
        command.kill()
        command.communicate()
        assert command.returncode == -signal.SIGKILL, moment
        for path in store.root.glob("objects/*-tiny-*"):
            assert path.name.startswith(scan_tree(path).digest.store_key), moment
    assert path.name.endswith("-tiny-train")
    assert how(tiny.build()) == {"train": "built", "evaluate": "built"}
    assert tiny.run("verify").code == 0
    assert list((store.root / "tmp").iterdir()) == []


def flip(path: Path) -> None:
    """Change one bit, leaving size and time as they are."""
    status = path.stat()
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    path.chmod(0o444)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
