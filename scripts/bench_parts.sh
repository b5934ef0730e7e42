#!/usr/bin/env bash
# Measures work in parts: `prepare --work-dir` against `prepare`, how large WORK grows, and the steps that see a whole corpus.
#
#   scripts/bench_parts.sh [FILES=100000] [ENTRIES=100000000] [PATHS=10000000]
#
# Environment: ROUNDS=9, WORK=target/bench (its file system is what is measured; the entries take about 100 bytes each, the paths
# as many inodes unless they are hard links, of which a file has 65,000), BIN=the binaries' directory (built in release if it
# is not given). ENTRIES=0 or PATHS=0 leaves that out. Needs cargo and python3.
#
# The two ways of preparing take turns; the ratio is the median of the ratios within a round. Entries are made up
# (examples/parts.rs): 1,000 parts of random ranks and marks, without lines. Paths are links in directories of 10,000.
set -euo pipefail
cd "$(dirname "$0")/.."

files=${1:-100000}
entries=${2:-100000000}
paths=${3:-10000000}
rounds=${ROUNDS:-9}
work=${WORK:-target/bench}
bin=${BIN:-}
if [[ -z $bin ]]; then
    cargo build --release --locked --quiet --examples --bins
    bin=${CARGO_TARGET_DIR:-target}/release
fi
python=$(python3 -c 'import sys; print(sys.executable)')
mkdir -p "$work"
out=$work/parts-out
runs=$work/parts.tsv
made=$work/parts-made
trap 'rm -rf "$out" "$out.parts" "$out.work" "$made"' EXIT

measured() { "$python" -I -S scripts/measure.py "$@"; }

corpus=$work/lean-$files
if [[ ! -e $corpus ]]; then "$bin/examples/corpus" "$corpus" "$files" lean >/dev/null; fi
prepare=("$bin/ctxtune" -q prepare "$corpus" --no-sync -o)
: >"$runs"
for ((round = 0; round < rounds; round++)); do
    rm -rf "$out" "$out.parts"
    sync
    whole=$(measured "${prepare[@]}" "$out")
    sync
    parts=$(measured "${prepare[@]}" "$out.parts" --work-dir "$out.work")
    printf '%s\t%s\n' "$whole" "$parts" >>"$runs"
done
diff -r "$out" "$out.parts"
rm -rf "$out.parts"
"$bin/ctxtune" distributed plan "$corpus" --no-sync -o "$out.parts" --work-dir "$out.work" >"$runs.plan"
last=$(($("$python" -c 'import json, sys; print(json.load(open(sys.argv[1]))["parts"])' "$runs.plan") - 1))
"$bin/ctxtune" distributed convert --work-dir "$out.work" --part "0-$last" >/dev/null
"$bin/ctxtune" distributed split --work-dir "$out.work" >/dev/null
"$bin/ctxtune" distributed write --work-dir "$out.work" --shard 0-1 >/dev/null
peak=$(du -s --apparent-size -B1 "$out.work" | cut -f1)
"$bin/ctxtune" -q distributed publish --work-dir "$out.work" >/dev/null
size=$(du -s --apparent-size -B1 "$out.parts" | cut -f1)
"$python" - "$runs" "$peak" "$size" "$files" <<'PYTHON'
import statistics
import sys

runs, peak, size, files = sys.argv[1:]
rows = [[float(field) for field in line.split()] for line in open(runs)]
wall = statistics.median(row[4] / row[0] for row in rows)
processor = statistics.median((row[5] + row[6]) / (row[1] + row[2]) for row in rows)
print(f"--work-dir / prepare, {files} files: {wall:.2f} of wall (aim 2.0), {processor:.2f} of processor time")
print(f"peak of WORK / output: {int(peak) / int(size):.2f} (aim 2.2)")
PYTHON

show() {
    "$python" - "$@" <<'PYTHON'
import sys

what, aim, wall, user, system, peak = sys.argv[1:]
print(f"{what}: {float(wall):.1f} s, {float(user) + float(system):.1f} s of processor time, {int(peak) / 1024:.1f} MiB ({aim})")
PYTHON
}

if ((entries > 0)); then
    mkdir -p "$made/tiny"
    for ((number = 0; number < 1000; number++)); do echo '{}' >"$made/tiny/$number.json"; done
    "$bin/ctxtune" distributed plan "$made/tiny" -o "$made/out" --work-dir "$made/work" --part-bytes 1B >/dev/null
    "$bin/examples/parts" "$made/work" "$entries"
    # shellcheck disable=SC2046
    show "split of $entries entries in 1,000 parts" "aim 180 s, 64 MiB" \
        $(measured "$bin/ctxtune" distributed split --work-dir "$made/work")
    rm -rf "$made"
fi

if ((paths > 0)); then
    mkdir -p "$made/paths"
    "$python" - "$made/paths" "$paths" <<'PYTHON'
import os
import sys

root, count = sys.argv[1], int(sys.argv[2])
for number in range(count):
    if number % 10_000 == 0:
        folder = f"{root}/{number // 10_000:05}"
        os.mkdir(folder)
    if number % 60_000 == 0:
        target = f"{root}/{number}.json"
        open(target, "w").write("{}")
    else:
        os.link(target, f"{folder}/{number:08}.json")
PYTHON
    # shellcheck disable=SC2046
    show "plan of $paths paths" "aim 90 s, 256 MiB" \
        $(measured "$bin/ctxtune" distributed plan "$made/paths" -o "$made/out" --work-dir "$made/work")
fi
