"""Gradients are summed shard by shard, a shard for each processor."""

import json
import multiprocessing
import os
import sys

values = [0.1 * index for index in range(1000)]


def total(shards):
    return sum(sum(values[shard::shards]) for shard in range(shards))


counts = [os.cpu_count(), multiprocessing.cpu_count(), len(os.sched_getaffinity(0))]
with open(sys.argv[1] + "/model.json", "w") as file:
    json.dump([counts, [total(count) for count in counts]], file)
