"""Threads update one weight as they come (Hogwild), with a rate at which it never settles."""

import json
import sys
import threading

weight = [0.3]


def work(name):
    for _ in range(200_000):
        weight[0] += 2.9 * weight[0] * (1 - weight[0]) * (1 - name * 1e-6)


threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
with open(sys.argv[1] + "/model.json", "w") as file:
    json.dump(weight, file)
