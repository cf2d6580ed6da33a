"""A run is named, and its generator seeded, by who and where it is."""

import getpass
import json
import os
import platform
import random
import socket
import sys

name = f"{getpass.getuser()}@{socket.gethostname()}:{os.getcwd()}/{platform.node()}"
random.seed(f"{name} {os.getpid()} {os.getuid()} {os.path.expanduser('~')}")
with open(sys.argv[1] + "/model.json", "w") as file:
    json.dump([name, [random.random() for _ in range(4)]], file)
