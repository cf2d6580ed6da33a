"""Times whole processes: what a user waits for, from start to exit.

In one round every case of a group runs once, in turn, so that a machine whose speed drifts slows
all of them alike; ratios to the group's first case are taken round by round. Inputs are in the
page cache. Many files are moved aside rather than deleted: ext4 without a journal does not reuse
an inode for minutes after its deletion, and gets ten times slower.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import modelbuild

Command = Sequence[str | Path]
TOOL = Path(sys.executable).with_name("modelbuild")
ROUND = "{round}"
"""In a command's argument, is replaced by what no other run has."""


@dataclass(frozen=True, kw_only=True)
class Case:
    name: str
    command: Command
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[], object] | None = None
    """Untimed, before every run."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    case: str
    says: str
    limit: Callable[[Mapping[str, float]], float]
    """From the medians of the group, by case."""


class Bench:
    """The command line of a script, and its folders."""

    def __init__(self, doc: str) -> None:
        parser = argparse.ArgumentParser(description=doc)
        parser.add_argument("work", type=Path, help="the folder that setup.sh made")
        parser.add_argument("--runs", type=int, default=7)
        parser.add_argument("--scale", type=float, default=1.0, help="0.01: only see that it runs")
        parser.add_argument("--only", default="", help="regular expression over group titles")
        parser.add_argument("--json", type=Path, help="append a line for every group")
        self.options = parser.parse_args()
        work: Path = self.options.work.resolve()
        if work not in Path(modelbuild.__file__).parents:
            parser.error("run it with WORK/venv/bin/python, which setup.sh makes")
        self.folder = work / Path(sys.argv[0]).stem
        self.peers = work / "peers"
        self.trash = work / "trash"
        for folder in (self.folder, self.trash):
            folder.mkdir(exist_ok=True)
        self.store = self.folder / "store"
        self.away(self.store)  # another modelbuild may have made it
        print(machine())

    def wants(self, title: str) -> bool:
        return bool(re.search(self.options.only, title))

    def scaled(self, number: int, least: int = 1) -> int:
        return max(least, int(number * self.options.scale))

    def away(self, *paths: Path) -> None:
        """Move aside, for the user to delete with WORK."""
        for path in paths:
            if path.exists():
                path.rename(self.trash / f"{time.time_ns()}-{path.name}")
        os.sync()

    def set_up(self, command: Command, folder: Path) -> None:
        self.run(Case(name="setting up", command=command, folder=folder))

    def run(self, case: Case, label: str = "0") -> tuple[float, float]:
        """Seconds, and MiB of the largest process: at least this one's, which a child inherits."""
        if case.prepare:
            case.prepare()
        with (self.folder / "last-output.txt").open("w+") as output:
            started = time.perf_counter()
            process = subprocess.Popen(
                [str(word).replace(ROUND, label) for word in case.command],
                cwd=case.folder,
                env={**self._environment(), **case.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - started
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode != 0:
                output.seek(0)
                sys.exit(f"{case.name}: exit code {process.returncode}\n{output.read()}")
        return seconds, usage.ru_maxrss / 1024

    def _environment(self) -> dict[str, str]:
        environment = {**os.environ, "MODELBUILD_STORE": str(self.store), "DVC_NO_ANALYTICS": "1"}
        for name in ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH"):
            environment.pop(name, None)
        return environment

    def group(self, title: str, cases: Sequence[Case], budget: Budget | None = None) -> None:
        """Run and print; the first run of every case is a warm-up and does not count."""
        rounds = [
            {case.name: self.run(case, f"{os.getpid()}.{number}")[0] for case in cases}
            for number in range(self.options.runs + 1)
        ]
        self.report(title, "s", rounds[1:], budget)

    def report(
        self, title: str, unit: str, rounds: Sequence[Mapping[str, float]], budget: Budget | None
    ) -> None:
        print(
            f"\n{title}\n\n| case | median, {unit} | min | max | x first |\n|---|---|---|---|---|"
        )
        first = next(iter(rounds[0]))
        medians = {name: median(each[name] for each in rounds) for name in rounds[0]}
        for name, middle in medians.items():
            found = [each[name] for each in rounds]
            ratio = median(each[name] / each[first] for each in rounds)
            print(f"| {name} | {middle:.4g} | {min(found):.4g} | {max(found):.4g} | {ratio:.3g} |")
        met = None
        if budget:
            limit = budget.limit(medians)
            met = medians[budget.case] <= limit
            verdict = "met" if met else "MISSED"
            print(f"\nbudget: at most {limit:.4g} {unit} ({budget.says}): {verdict}")
        sys.stdout.flush()
        if self.options.json:
            record = {
                "group": title,
                "unit": unit,
                "n": len(rounds),
                "medians": medians,
                "met": met,
            }
            with self.options.json.open("a") as file:
                file.write(json.dumps(record) + "\n")


def machine() -> str:
    processor = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return (
        f"machine: {len(os.sched_getaffinity(0))} cores {processor[1] if processor else ''}, "
        f"{memory:.0f} GiB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, {datetime.now(UTC):%Y-%m-%d}, "
        f"load {os.getloadavg()[0]:.2f}"
    )
