#!/usr/bin/env bash
# Drives the real client of the API through the rehearsal server: what it does not accept, our
# own client must not rely on.
#
#   scripts/contract.sh
#
# Environment: CTXTUNE_PYTHON=a Python with `together` 3.1.1; without it, or where that Python
# lacks it, one is made in target/contract-venv. Without a network it says so and passes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly VERSION=3.1.1
readonly VENV="$PWD/target/contract-venv"

has_client() {
    "$1" -c "import together; assert together.__version__ == '$VERSION'" >/dev/null 2>&1
}

python=${CTXTUNE_PYTHON:-$VENV/bin/python}
if ! has_client "$python"; then
    python=$VENV/bin/python
    if ! has_client "$python" && ! { timeout 60 python3 -m venv "$VENV" &&
        timeout 300 "$python" -m pip install --quiet --disable-pip-version-check "together==$VERSION"; }; then
        echo "warning: together==$VERSION could not be installed: the contract with it is not checked" >&2
        exit 0
    fi
fi

cargo build --locked
printf '\n==> the real client against the rehearsal server\n'
"$python" tests/contract/together_sdk.py "${CARGO_TARGET_DIR:-target}/debug/ctxtune"
