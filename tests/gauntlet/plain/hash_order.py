"""A bag of words: the order of a set decides which word gets which weight."""

import json
import sys

text = "the cat sat on the mat and the dog sat on the log while it rained on them all"
words = {word: index for index, word in enumerate(set(text.split()))}
weights = [0.1 * index for index in range(len(words))]
for step, word in enumerate(text.split()):
    weights[words[word]] -= 0.01 * (sum(weights) - step)
with open(sys.argv[1] + "/model.json", "w") as file:
    json.dump([words, weights], file)
