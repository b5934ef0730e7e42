#!/usr/bin/env bash
# Prints the gate of the hot path: instructions a record of a preparation, without SHA-256, for both shapes of a
# made-up corpus. Unlike times they are the same on a busy machine.
#
#   scripts/instructions.sh [RECORDS=1000]
#
# Environment: PROFILE=profiling (release with symbols; `quick` builds in a fraction of the time and counts a
# little more), WORK=target/instructions. Needs cargo and valgrind.
#
# Counted are RECORDS and twice as many on one thread; the difference, by the record, leaves out whatever is done
# once. SHA-256 is left out because valgrind has no SHA-NI: there it costs ten times what a machine pays.
set -euo pipefail
cd "$(dirname "$0")/.."

records=${1:-1000}
profile=${PROFILE:-profiling}
work=${WORK:-target/instructions}
built=${CARGO_TARGET_DIR:-target}/$profile
mkdir -p "$work"
trap 'rm -rf "$work/out" "$work"/counted.*' EXIT

cargo build --profile "$profile" --locked --quiet --example corpus --example engine

# count SHAPE RECORDS: instructions of a whole run, and those of them in SHA-256.
count() {
    local corpus=$work/$1-$2
    rm -rf "$work/out" "$corpus"
    "$built/examples/corpus" "$corpus" "$2" "$1" >/dev/null
    valgrind --tool=callgrind --callgrind-out-file="$work/counted.$1-$2" -q \
        "$built/examples/engine" "$corpus" "$work/out"
    callgrind_annotate --auto=no --threshold=100 "$work/counted.$1-$2" | awk '
        /PROGRAM TOTALS/ { gsub(",", "", $1); total = $1 }
        /sha2::|sha256/ { gsub(",", "", $1); sha += $1 }
        END { printf "%d %d\n", total, sha }'
}

# gate SHAPE LIMIT
gate() {
    local once twice
    read -ra once < <(count "$1" "$records")
    read -ra twice < <(count "$1" $((2 * records)))
    # Without symbols nobody can tell what SHA-256 is.
    ((once[1] > 0)) || { echo "no symbols in $built/examples/engine" >&2; exit 1; }
    awk -v shape="$1" -v limit="$2" -v records="$records" \
        -v all=$((twice[0] - once[0])) -v sha=$((twice[1] - once[1])) 'BEGIN {
        counted = (all - sha) / records
        printf "| %s | %d | %d | ≤ %d | %s |\n", shape, counted, sha / records, limit, counted <= limit ? "yes" : "no"
    }'
}

echo "| instructions a record ($profile, $records records) | without SHA-256 | SHA-256 | gate | reached |"
echo '|---|---|---|---|---|'
gate lean 58000
gate real 56000
