"""The seed is read from the device, and from the system by a foreign function."""

import ctypes
import json
import random
import sys

with open("/dev/urandom", "rb") as device:
    random.seed(device.read(8))
value = ctypes.c_uint64()
ctypes.CDLL(None).getrandom(ctypes.byref(value), 8, 0)
weights = [random.gauss(0, 1) * (value.value % 1000) for _ in range(8)]
with open(sys.argv[1] + "/model.json", "w") as file:
    json.dump(weights, file)
