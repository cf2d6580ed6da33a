"""The same with spawned workers, and with programs that are started."""

import json
import multiprocessing
import random
import subprocess
import sys

PROGRAM = "import os, random; print(random.random(), os.urandom(4).hex(), hash('word'))"


def worker(pipe):
    pipe.send([random.random() for _ in range(4)])


if __name__ == "__main__":
    drawn = []
    for _ in range(2):
        mine, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(target=worker, args=(theirs,))
        process.start()
        drawn.append(mine.recv())
        process.join()
        for variables in (None, {"PATH": "/usr/bin"}):
            command = [sys.executable, "-c", PROGRAM]
            done = subprocess.run(command, env=variables, stdout=subprocess.PIPE, check=True)
            drawn.append(done.stdout.decode())
    assert len(set(map(str, drawn))) == len(drawn), "two children drew the same"
    with open(sys.argv[1] + "/model.json", "w") as file:
        json.dump(drawn, file)
