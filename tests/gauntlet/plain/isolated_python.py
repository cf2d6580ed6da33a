"""A child in isolated mode ignores PYTHONHASHSEED."""

import subprocess
import sys

code = "print(list({'cat', 'dog', 'mat', 'log', 'rain'}), hash('word'))"
found = subprocess.run([sys.executable, "-I", "-c", code], stdout=subprocess.PIPE, check=True)
with open(sys.argv[1] + "/model.json", "wb") as file:
    file.write(found.stdout)
