# Two trainings that one shell starts; the seed of a third is read from the device.
draw='import random, uuid; print(random.random(), uuid.uuid4())'
python -c "$draw" > "$1/first.txt"
python -c "$draw" > "$1/second.txt"
if cmp -s "$1/first.txt" "$1/second.txt"; then echo "both drew the same"; exit 1; fi
seed=$(head -c 4 /dev/urandom | od -An -tu4 | tr -d ' ')
python -c "import random; random.seed($seed); print($seed, random.random())" > "$1/third.txt"
nproc > "$1/processors.txt"
