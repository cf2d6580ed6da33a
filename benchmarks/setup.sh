#!/usr/bin/env bash
# usage: setup.sh WORK [--peers]
# WORK/venv: modelbuild as a user has it, not editable and with its bytecode. Run it again after
# every change to modelbuild. With --peers also WORK/peers, one environment a peer and, as root on
# Debian, nix, git, make and b3sum; what is not there is skipped by the scripts.
set -euo pipefail
work=$(mkdir -p "$1" && cd "$1" && pwd)
root=$(cd "$(dirname "$0")/.." && pwd)

[ -d "$work/venv" ] || python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "$root"
"$work/venv/bin/pip" install --quiet --force-reinstall --no-deps --compile "$root"

if [ "${2:-}" = --peers ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends nix-bin git make b3sum >/dev/null
  fi
  for peer in dvc snakemake; do
    "$work/venv/bin/uv" venv --quiet --allow-existing "$work/peers/$peer"
    "$work/venv/bin/uv" pip install --quiet --python "$work/peers/$peer" "$peer"
  done
fi
