#!/usr/bin/env bash
# Measures `ctxtune prepare` against the floor under it and against Python, in rotation.
#
#   scripts/bench.sh [FILES=100000] [SHAPE=lean|real]
#   scripts/bench.sh all        20,000 and 100,000 files in both shapes, then scripts/slow_storage.sh
#
# Environment: ROUNDS=15, THREADS=2, WORK=target/bench (corpus and outputs; its file system is
# what is measured), CTXTUNE_PYTHON=a Python with orjson, BASELINE=rounds that also run the Python baseline (1 from 20,000 files
# on, else 3; 0 leaves it out), BIN=the binaries' directory (built in release if it is not given). Needs cargo
# and python3.
#
# Every ratio but Python's is the median of the ratios within a round, so that a machine that
# is slow for a minute slows both sides. Removing old output, `sync` and warming the page cache happen
# between the runs, outside the clock.
set -euo pipefail
cd "$(dirname "$0")/.."

if [[ ${1:-} == all ]]; then
    for files in 20000 100000; do
        for shape in lean real; do "$0" "$files" "$shape"; done
    done
    exec scripts/slow_storage.sh
fi
files=${1:-100000}
shape=${2:-lean}
rounds=${ROUNDS:-15}
threads=${THREADS:-2}
work=${WORK:-target/bench}
if ((files >= 20000)); then baseline_rounds=${BASELINE:-1}; else baseline_rounds=${BASELINE:-3}; fi

# The interpreter itself: a version manager's wrapper would be measured with it.
python=$(python3 -c 'import sys; print(sys.executable)')
bin=${BIN:-}
if [[ -z $bin ]]; then
    cargo build --release --locked --quiet --examples --bins
    bin=${CARGO_TARGET_DIR:-target}/release
fi
mkdir -p "$work"
corpus=$work/$shape-$files
out=$work/out
runs=$work/runs.tsv
trap 'rm -rf "$out" "$out.baseline" "$out.warm" "$out.plain"' EXIT

# The corpus is made again when its generator changes or was interrupted.
generator=$(cksum <benches/corpus.rs)
if [[ $(head -n 1 "$corpus.made" 2>/dev/null) != "$generator" ]]; then
    rm -rf "$corpus" "$corpus.made"
    size=$("$bin/examples/corpus" "$corpus" "$files" "$shape")
    printf '%s\n%s\n' "$generator" "$size" >"$corpus.made"
fi

# timed ROUND NAME COMMAND...: one line for the table, on a quiet disk and with what is read in the
# page cache: some kernels take back pages that have been idle for a few seconds.
timed() {
    local round=$1 name=$2 figures source=$corpus
    shift 2
    case $name in *-jsonl*) source=$lines.${name#*-} ;; esac
    sync
    "$bin/examples/floor" "$source" "$out.warm" --threads "$threads" --bytes 0 >/dev/null
    figures=$("$python" -I -S scripts/measure.py "$@")
    printf '%s\t%s\t%s\n' "$round" "$name" "$figures" >>"$runs"
}

# The program that reads a container and does nothing else with it.
plain() {
    case $1 in
        copy-jsonl) echo "cat $lines.jsonl" ;;
        copy-jsonl.gz) echo "gzip -dc $lines.jsonl.gz" ;;
        copy-jsonl.zst) echo "zstd -qdc $lines.jsonl.zst" ;;
    esac
}

run() {
    local round=$1 name=$2
    local floor=("$bin/examples/floor" "$corpus" "$out")
    local product=("$bin/ctxtune" prepare "$corpus" --output-dir "$out" -q)
    rm -rf "$out"
    case $name in
        floor) timed "$round" "$name" "${floor[@]}" --threads "$threads" --bytes "$bytes" ;;
        floor-one-thread) timed "$round" "$name" "${floor[@]}" --threads 1 --bytes "$bytes" ;;
        floor-fsync) timed "$round" "$name" "${floor[@]}" --threads "$threads" --bytes "$bytes" --fsync ;;
        no-sync) timed "$round" "$name" "${product[@]}" --threads "$threads" --no-sync ;;
        default) timed "$round" "$name" "${product[@]}" --threads "$threads" ;;
        one-thread) timed "$round" "$name" "${product[@]}" --threads 1 --no-sync ;;
        orjson) timed "$round" "$name" "$orjson_python" scripts/baseline_orjson.py "$corpus" "$out" ;;
        copy-*) timed "$round" "$name" bash -c "$(plain "$name") > $out.plain" ;;
        under-*) timed "$round" "$name" "$bin/examples/floor" "$lines.${name#under-}" "$out" \
            --threads "$threads" --bytes "$line_bytes" ;;
        pack-*) timed "$round" "$name" "$bin/ctxtune" prepare "$lines.${name#pack-}" --output-dir "$out" -q \
            --threads "$threads" --no-sync ;;
        baseline) timed "$round" "$name" "$python" -I -S scripts/baseline.py "$corpus" "$out" ;;
    esac
    rm -rf "$out"
}

# The same records as lines, plain and compressed, each made once. Without the `zstd` program its
# rows are left out; without orjson (CTXTUNE_PYTHON names a Python that has it) that one is.
lines=$work/$shape-$files.lines
if [[ ! -e $lines.jsonl || $lines.jsonl -ot $corpus.made ]]; then
    "$python" -I -S -c '
import json, os, sys
with open(sys.argv[2], "w", encoding="utf-8") as out:
    for name in sorted(os.listdir(sys.argv[1])):
        with open(os.path.join(sys.argv[1], name), encoding="utf-8-sig") as record:
            out.write(json.dumps(json.load(record), ensure_ascii=False) + "\n")
' "$corpus" "$lines.jsonl"
    gzip -kf -1 "$lines.jsonl"
    if command -v zstd >/dev/null; then zstd -qkf "$lines.jsonl"; fi
fi
packs=(jsonl jsonl.gz)
if [[ -e $lines.jsonl.zst ]]; then packs+=(jsonl.zst); fi
orjson_python=${CTXTUNE_PYTHON:-$python}
if ! "$orjson_python" -c 'import orjson' 2>/dev/null; then orjson_python=; fi

# The first runs say how many bytes the floors have to write, and one is compared with the baseline:
# nothing is gained by being fast and wrong.
written_from() {
    rm -rf "$out"
    "$bin/ctxtune" prepare "$1" --output-dir "$out" --threads "$threads" --no-sync -q >/dev/null
    cat "$out/train.jsonl" "$out/val.jsonl" "$out/keys.tsv" | wc -c | tr -d ' '
}
line_bytes=$(written_from "$lines.jsonl")
bytes=$(written_from "$corpus")
rm -rf "$out.baseline"
if ((baseline_rounds > 0)); then
    "$python" -I -S scripts/baseline.py "$corpus" "$out.baseline"
    cmp "$out/train.jsonl" "$out.baseline/train.jsonl"
    cmp "$out/val.jsonl" "$out.baseline/val.jsonl"
    rm -rf "$out.baseline"
fi

# Other work on the machine shows in this figure, before our own does.
load=$(uptime | sed 's/.*averages\{0,1\}: *//')
: >"$runs"
names=(floor floor-one-thread floor-fsync no-sync default one-thread)
for ((round = 0; round < rounds; round++)); do
    for ((turn = 0; turn < ${#names[@]}; turn++)); do
        run "$round" "${names[(round + turn) % ${#names[@]}]}"
    done
    if ((round < baseline_rounds)); then
        run "$round" baseline
        if [[ -n $orjson_python ]]; then run "$round" orjson; fi
    fi
    for pack in "${packs[@]}"; do
        run "$round" "copy-$pack"
        run "$round" "under-$pack"
        run "$round" "pack-$pack"
    done
done

cpu=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo 2>/dev/null | head -n 1 || true)
[[ -n $cpu ]] || cpu=$(sysctl -n machdep.cpu.brand_string 2>/dev/null || uname -m)
file_system=$(findmnt -no FSTYPE -T "$work" 2>/dev/null || echo 'unknown file system')
cat <<EOF
\$ ROUNDS=$rounds THREADS=$threads scripts/bench.sh $files $shape
$(date -u +%Y-%m-%d); $cpu, $(getconf _NPROCESSORS_ONLN) cores; $(uname -sr); $file_system; $(rustc --version | cut -d' ' -f1,2); $("$python" --version)
corpus: $(tail -n 1 "$corpus.made"); output: $bytes bytes; load average before: $load

EOF
"$python" -I -S - "$runs" "$files" "$threads" <<'EOF'
import sys
from statistics import median

runs, files, threads = sys.argv[1], int(sys.argv[2]), sys.argv[3]
wall, cpu, peak = {}, {}, {}
for row in open(runs, encoding="utf-8"):
    turn, name, *figures = row.split()
    seconds, user, system, kib = map(float, figures)
    wall.setdefault(name, {})[turn] = seconds
    cpu.setdefault(name, {})[turn] = user + system
    peak.setdefault(name, {})[turn] = kib / 1024

titles = {
    "floor": f"floor, {threads} threads",
    "floor-one-thread": "floor, 1 thread",
    "floor-fsync": f"floor with fsync, {threads} threads",
    "no-sync": f"ctxtune --no-sync, {threads} threads",
    "default": f"ctxtune, {threads} threads",
    "one-thread": "ctxtune --no-sync, 1 thread",
    "baseline": "Python, standard library",
    "orjson": "Python, orjson, 2 processes",
    "copy-jsonl": "cat",
    "under-jsonl": f"floor of .jsonl, {threads} threads",
    "pack-jsonl": "ctxtune --no-sync, .jsonl",
    "copy-jsonl.gz": "gzip -dc",
    "under-jsonl.gz": f"floor of .jsonl.gz, {threads} threads",
    "pack-jsonl.gz": "ctxtune --no-sync, .jsonl.gz",
    "copy-jsonl.zst": "zstd -dc",
    "under-jsonl.zst": f"floor of .jsonl.zst, {threads} threads",
    "pack-jsonl.zst": "ctxtune --no-sync, .jsonl.zst",
}
print("| median of a run | wall s | least | most | CPU s | files/s | peak MiB |")
print("|---|---|---|---|---|---|---|")
for name, title in titles.items():
    if name in wall:
        times = wall[name].values()
        print(
            f"| {title} | {median(times):.3f} | {min(times):.3f} | {max(times):.3f}"
            f" | {median(cpu[name].values()):.3f} | {files / median(times):,.0f} | {max(peak[name].values()):.1f} |"
        )


def ratios(above, below):
    pairs = wall[above].keys() & wall[below].keys()
    return [wall[above][turn] / wall[below][turn] for turn in pairs]


def show(title, values, relation="", target=None, unit=""):
    value = median(values)
    goal = reached = ""
    if target is not None:
        goal = f"{relation} {target:g}{unit}"
        reached = "yes" if (value <= target if relation == "≤" else value >= target) else "no"
    print(f"| {title} | {value:.2f}{unit} | {min(values):.2f} | {max(values):.2f} | {goal} | {reached} |")


print("\n| median of the ratios within a round | measured | least | most | target | reached |")
print("|---|---|---|---|---|---|")
show("--no-sync / floor", ratios("no-sync", "floor"), "≤", 1.5)
show("default / floor with fsync", ratios("default", "floor-fsync"), "≤", 1.5)
for python, title in [("baseline", "Python"), ("orjson", "Python with orjson")]:
    if python in wall:
        # Its few runs are long enough to average out what disturbs a short one: no pairs here.
        seconds = median(wall[python].values())
        ours, floors = [[seconds / own for own in wall[name].values()] for name in ("no-sync", "floor")]
        show(f"{title} / --no-sync", ours)
        show(f"{title} / floor", floors)
        show(f"({title} / --no-sync) ÷ ({title} / floor)", ratios("floor", "no-sync"), "≥", 0.66)
for pack, target in [("jsonl", 1.5), ("jsonl.gz", 1.2), ("jsonl.zst", 1.2)]:
    if f"pack-{pack}" in wall:
        show(f".{pack} / its floor", ratios(f"pack-{pack}", f"under-{pack}"), "≤", target)
        show(f".{pack} / {titles[f'copy-{pack}']}", ratios(f"pack-{pack}", f"copy-{pack}"))
scaling = ratios("one-thread", "no-sync")
floor_scaling = ratios("floor-one-thread", "floor")
show(f"1 thread / {threads} threads", scaling)
show(f"the same of the floor", floor_scaling)
show("the one ÷ the other", [value / median(floor_scaling) for value in scaling], "≥", 0.97)
largest = [max(peak[name].values()) for name in ("no-sync", "default", "one-thread")]
show("peak RSS of all runs", [max(largest)], "≤", 16, " MiB")
EOF
