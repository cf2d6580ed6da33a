"""What somebody exported decides a hyperparameter; so do limits and the mask of new files."""

import json
import os
import resource
import sys

rate = float(os.environ.get("LR", "0.1"))
mask = os.umask(0)
limits = [resource.getrlimit(kind) for kind in (resource.RLIMIT_STACK, resource.RLIMIT_NOFILE)]
with open(sys.argv[1] + "/model.json", "w") as file:
    json.dump([rate, mask, limits[0][0], sorted(os.environ), sys.argv[0]], file)
