"""Features made of formatted numbers and local times."""

import json
import locale
import sys
import time

locale.setlocale(locale.LC_ALL, "")
hour = time.localtime(1_700_000_000).tm_hour
words = sorted(["zebra", "Ähre", "apple", "Zoo", "éclair"], key=locale.strxfrm)
with open(sys.argv[1] + "/model.json", "w") as file:
    text = open(__file__).read()
    json.dump([hour, time.tzname, words, locale.str(0.5), len(text), file.encoding], file)
