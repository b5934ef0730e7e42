#!/usr/bin/env bash
# Tries the engines of docs/distributed.md for real, in a network of their own (scripts/alone.sh).
#
#   scripts/engines.sh ray [TEST]...     tests/engines/ray_engine.py: a TEST is `Local`, on this machine, or `Cluster`, four
#                                        nodes that are killed; both without one
#   scripts/engines.sh slurm [TEST]...   tests/engines/slurm_engine.py: slurmctld and three slurmd (Debian: slurm-wlm)
#   scripts/engines.sh docs WHEEL        the page's commands for Ray, from WHEEL alone in a fresh environment
#
# Environment: CTXTUNE_PYTHON=a Python with Ray; without it, or where it has none, one is made in target/ray-venv.
# What cannot run here is said, and passes, unless CTXTUNE_REQUIRE names it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly RAY=ray==2.60.0
readonly VENV="$PWD/target/ray-venv"

# skip WHAT WHY
skip() {
    printf 'warning: %s: not tried\n' "$2" >&2
    case ",${CTXTUNE_REQUIRE:-}," in *",$1,"*) exit 1 ;; esac
    exit 0
}

# Sockets have short names: below a short directory.
RAY_TMPDIR=$(mktemp -d /tmp/r.XXXX)
trap 'rm -rf "$RAY_TMPDIR"' EXIT
export RAY_TMPDIR RAY_USAGE_STATS_ENABLED=0 PYTHONDONTWRITEBYTECODE=1

# alone WHAT COMMAND...
alone() {
    local what=$1 code=0
    shift
    scripts/alone.sh "$@" || code=$?
    ((code != 77)) || skip "$what" 'this needs Linux and root'
    return "$code"
}

has_ray() {
    "$1" -c 'import ray' >/dev/null 2>&1
}

engine=${1:?ray, slurm or docs}
shift
case $engine in
ray)
    python=${CTXTUNE_PYTHON:-$VENV/bin/python}
    if ! has_ray "$python"; then
        python=$VENV/bin/python
        has_ray "$python" || { timeout 60 python3 -m venv "$VENV" &&
            timeout 300 "$python" -m pip install --quiet --disable-pip-version-check "$RAY"; } ||
            skip ray "$RAY does not install"
    fi
    cargo build --locked
    PYTHONPATH="$PWD/python" alone ray "$python" tests/engines/ray_engine.py \
        "${CARGO_TARGET_DIR:-target}/debug/ctxtune" fixtures/contexts "$@"
    ;;
slurm)
    command -v slurmctld >/dev/null || skip slurm 'slurmctld (Debian: slurm-wlm) is not here'
    cargo build --locked
    alone slurm python3 tests/engines/slurm_engine.py "${CARGO_TARGET_DIR:-target}/debug/ctxtune" fixtures/contexts "$@"
    ;;
docs)
    wheel=$(realpath "$1")
    room=$RAY_TMPDIR/room
    python3 -m venv "$room/venv"
    timeout 300 "$room/venv/bin/python" -m pip install --quiet --disable-pip-version-check "$wheel[ray]"
    cp -r fixtures/contexts "$room/contexts"
    awk -v marker='<!-- not run: needs Ray; .ci/nightly runs it -->' \
        '/^```/ {if (on) exit; on = last == marker; next} on {print} {last = $0}' docs/distributed.md >"$room/commands"
    grep -q '^python -m ctxtune.ray prepare' "$room/commands"
    # Nothing of whoever runs this: no toolchain, no checkout.
    alone ray env -i -C "$room" HOME="$room" LC_ALL=C.UTF-8 PATH="$room/venv/bin:/usr/bin:/bin" RAY_TMPDIR="$RAY_TMPDIR" \
        bash -euxc '. ./commands; ctxtune prepare contexts -o expected; diff -r out expected
            python -m ctxtune.ray prepare contexts -o sent --work-dir work --pip "$1"; diff -r sent expected' docs "$wheel"
    ;;
*)
    printf 'error: %s is no engine\n' "$engine" >&2
    exit 2
    ;;
esac
