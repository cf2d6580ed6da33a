"""Two forked workers augment the data, unseeded; neither may repeat the other."""

import json
import multiprocessing
import os
import random
import sys
import uuid


def augment(start):
    noise = [start + random.random() for _ in range(4)]
    return noise, str(uuid.uuid4()), os.urandom(4).hex()


def worker(start, pipe):
    pipe.send(augment(start))


drawn = []
for start in range(2):
    mine, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=worker, args=(0, theirs))
    process.start()
    drawn.append(mine.recv())
    process.join()
assert drawn[0] != drawn[1], "two workers drew the same"
with open(sys.argv[1] + "/model.json", "w") as file:
    json.dump(drawn, file)
