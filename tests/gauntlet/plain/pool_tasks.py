"""More unseeded tasks than workers: which of them takes a task decides what it draws."""

import json
import multiprocessing
import random
import sys


def task(number):
    return number + random.random() + sum(range(20_000)) * 0


if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(2) as pool:
        drawn = pool.map(task, range(400), chunksize=1)
    with open(sys.argv[1] + "/model.json", "w") as file:
        json.dump(drawn, file)
