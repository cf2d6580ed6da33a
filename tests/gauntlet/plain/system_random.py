"""Names and noise from what is meant for secrets."""

import json
import os
import secrets
import sys
import uuid

run = f"{uuid.uuid4()}-{secrets.token_hex(4)}"
noise = [byte / 255 for byte in os.urandom(16) + os.getrandom(16) + secrets.token_bytes(16)]
weight = 0.0
for value in noise:
    weight += 0.1 * (value - weight)
with open(sys.argv[1] + "/model.json", "w") as file:
    json.dump([run, weight], file)
