#!/usr/bin/env bash
# Drives the real clients of the APIs through the rehearsal server: what they do not accept, our
# own clients must not rely on.
#
#   scripts/contract.sh [together_sdk|wandb_sdk]...
#
# Without names: every script of tests/contract that ends in `_sdk.py`, each of which takes the
# program. Environment: CTXTUNE_PYTHON=a Python with the clients; without it, or where that Python
# lacks one, one is made in target/contract-venv. Without a network it says so and passes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly CLIENTS=('together==3.1.1' 'wandb==0.31.0')
readonly VENV="$PWD/target/contract-venv"

has_clients() {
    "$1" - "${CLIENTS[@]}" >/dev/null 2>&1 <<'PYTHON'
import importlib.metadata, sys

for client in sys.argv[1:]:
    name, version = client.split("==")
    assert importlib.metadata.version(name) == version
PYTHON
}

python=${CTXTUNE_PYTHON:-$VENV/bin/python}
if ! has_clients "$python"; then
    python=$VENV/bin/python
    if ! has_clients "$python" && ! { timeout 60 python3 -m venv "$VENV" &&
        timeout 300 "$python" -m pip install --quiet --disable-pip-version-check "${CLIENTS[@]}"; }; then
        echo "warning: ${CLIENTS[*]} could not be installed: the contract with them is not checked" >&2
        exit 0
    fi
fi

cargo build --locked
scripts=("${@/%/.py}")
[[ $# -gt 0 ]] || scripts=(tests/contract/*_sdk.py)
for script in "${scripts[@]##*/}"; do
    printf '\n==> %s: the real client against the rehearsal server\n' "${script%_sdk.py}"
    "$python" "tests/contract/$script" "${CARGO_TARGET_DIR:-target}/debug/ctxtune"
done
