#!/usr/bin/env bash
# Tries a wheel as somebody does who has Python and no compiler: README's first screen, the Python package, and `uvx`.
#
#   scripts/wheel_check.sh WHEEL UVX
#
# UVX is the path of uv's `uvx`. The Python is `python3` of the search path.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

wheel=$(realpath "$1")
uvx=$(realpath "$2")
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT

python3 -m venv "$room/venv"
"$room/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-index "$wheel"

# Nothing of whoever runs this: no toolchain, no keys, no configuration.
alone() {
    env -i HOME="$room" LC_ALL=C.UTF-8 PATH="$room/venv/bin" PYTHONDONTWRITEBYTECODE=1 "$@"
}

step() {
    printf '\n==> %s\n' "$*"
}

step "README's first screen"
cp -r fixtures/contexts "$room/contexts"
(
    cd "$room"
    alone ctxtune prepare contexts --output-dir out
    alone ctxtune check out
    alone ctxtune rehearse --job-seconds 0.5
)

step 'the Python package'
alone "$room/venv/bin/python" tests/it/python_package.py .
alone "$room/venv/bin/python" - <<'PYTHON'
import subprocess, sys

# The least of several: what else the machine does is not the package's.
probe = "import time; start = time.perf_counter(); import ctxtune; print(time.perf_counter() - start)"
times = [float(subprocess.check_output([sys.executable, "-c", probe])) for _ in range(10)]
print(f"import ctxtune: {min(times) * 1000:.1f} ms at least, {sorted(times)[5] * 1000:.1f} ms half the time")
PYTHON

step 'uvx'
(cd "$room" && alone "$uvx" --offline --python "$room/venv/bin/python" --from "$wheel" ctxtune --version)
