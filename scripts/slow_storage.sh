#!/usr/bin/env bash
# Measures `ctxtune prepare` where every open takes longer: the default against the best number of threads.
#
#   scripts/slow_storage.sh [FILES=2000] [MILLISECONDS=4]
#
# Environment: ROUNDS=15, THREADS="8 16 32 64 128" (what the default is held against), WORK=target/bench,
# BIN=the binaries' directory (built in release if it is not given). Needs strace, python3 and cargo.
#
# strace delays `openat` and leaves all other system calls alone. The numbers of threads take turns; the
# ratio is that of the default's median to the least median.
set -euo pipefail
cd "$(dirname "$0")/.."

files=${1:-2000}
milliseconds=${2:-4}
rounds=${ROUNDS:-15}
work=${WORK:-target/bench}
read -ra threads <<<"${THREADS:-8 16 32 64 128}"

bin=${BIN:-}
if [[ -z $bin ]]; then
    cargo build --release --locked --quiet --examples --bins
    bin=${CARGO_TARGET_DIR:-target}/release
fi
python=$(python3 -c 'import sys; print(sys.executable)')
mkdir -p "$work"
corpus=$work/slow-$files
out=$work/slow-out
runs=$work/slow.tsv
trap 'rm -rf "$out"' EXIT
if [[ ! -e $corpus.made ]]; then
    rm -rf "$corpus"
    "$bin/examples/corpus" "$corpus" "$files" lean >/dev/null
    touch "$corpus.made"
fi

: >"$runs"
names=(default "${threads[@]}")
for ((round = 0; round < rounds; round++)); do
    for ((turn = 0; turn < ${#names[@]}; turn++)); do
        name=${names[(round + turn) % ${#names[@]}]}
        options=(--output-dir "$out" --no-sync -q)
        if [[ $name != default ]]; then options+=(--threads "$name"); fi
        rm -rf "$out"
        figures=$("$python" -I -S scripts/measure.py strace -f -qq --seccomp-bpf -o /dev/null --trace=openat \
            --inject=openat:delay_enter="$((milliseconds * 1000))" "$bin/ctxtune" prepare "$corpus" "${options[@]}")
        printf '%s\t%s\n' "$name" "$figures" >>"$runs"
    done
done

echo "$files files, $milliseconds ms more an open, $rounds rounds"
"$python" -I -S - "$runs" <<'EOF'
import sys
from statistics import median

wall = {}
for row in open(sys.argv[1], encoding="utf-8"):
    name, seconds, *_ = row.split()
    wall.setdefault(name, []).append(float(seconds))
for name, times in wall.items():
    title = name if name == "default" else f"--threads {name}"
    print(f"| {title} | {median(times):.3f} s | {min(times):.3f} | {max(times):.3f} |")
ratio = median(wall["default"]) / min(median(times) for name, times in wall.items())
print(f"| default / best | {ratio:.2f} | ≤ 1.3 | {'yes' if ratio <= 1.3 else 'no'} |")
EOF
