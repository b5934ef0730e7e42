#!/usr/bin/env bash
# Measures `ctxtune check` against the client's own check of the same file, in rotation; without counting tokens, which
# the client does not do.
#
#   scripts/bench_check.sh [RECORDS=100000] [SHAPE=lean|real]
#
# Environment: ROUNDS=5, THREADS=2, WORK=target/bench (corpus and file), PROFILE=release,
# CTXTUNE_PYTHON=a Python with `together` 3.1.1, FILE=another JSONL instead of the made-up one.
# Needs cargo and `pip install together==3.1.1`.
#
# The file is what `ctxtune prepare` makes of a generated corpus, and lies in the page cache.
# Of Python only the call of `check_file` is timed, not its start; of ctxtune the whole
# process, which checks structure and conversation. Every ratio is the median of the ratios
# within a round.
set -euo pipefail
cd "$(dirname "$0")/.."

records=${1:-100000}
shape=${2:-lean}
rounds=${ROUNDS:-5}
threads=${THREADS:-2}
work=${WORK:-target/bench}
profile=${PROFILE:-release}
python=$("${CTXTUNE_PYTHON:-python3}" -c 'import sys; print(sys.executable)')
target=${CARGO_TARGET_DIR:-target}/$profile
mkdir -p "$work"
runs=$work/check-runs.tsv

"$python" -c 'import together; assert together.__version__ == "3.1.1"' 2>/dev/null || {
    echo "error: $python has no together 3.1.1: pip install together==3.1.1, and name its Python in CTXTUNE_PYTHON" >&2
    exit 1
}
cargo build --profile "$profile" --locked --quiet --examples --bins

file=${FILE:-$work/check-$shape-$records/train.jsonl}
if [[ ! -f $file ]]; then
    corpus=$work/check-corpus
    rm -rf "$corpus"
    "$target/examples/corpus" "$corpus" "$records" "$shape" >/dev/null
    "$target/ctxtune" prepare "$corpus" --output-dir "$(dirname "$file")" --val-ratio 0 --no-sync -q >/dev/null
    rm -rf "$corpus"
fi

# Prints the wall seconds and the peak RSS in KiB of the client, whose verdict must be ours: nothing is gained by being fast and wrong.
client='
import resource, sys, time
from together.lib.utils.files import check_file
start = time.perf_counter()
report = check_file(sys.argv[1])
wall = time.perf_counter() - start
if not report["is_check_passed"] or report["num_samples"] != int(sys.argv[2]):
    sys.exit(f"{report}")
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)
print(f"{wall:.6f}\t{peak}")
'

# The first run warms the page cache.
samples=$("$target/ctxtune" check "$file" --json -q --no-tokens | "$python" -c 'import json, sys; print(json.load(sys.stdin)["samples"])')

run() {
    local round=$1 name=$2 figures
    case $name in
        both) figures=$("$python" -I -S scripts/measure.py "$target/ctxtune" check "$file" -q --no-tokens --threads "$threads" | cut -f 1,4) ;;
        one) figures=$("$python" -I -S scripts/measure.py "$target/ctxtune" check "$file" -q --no-tokens --threads 1 | cut -f 1,4) ;;
        client) figures=$("$python" -c "$client" "$file" "$samples") ;;
    esac
    printf '%s\t%s\t%s\n' "$round" "$name" "$figures" >>"$runs"
}

load=$(uptime | sed 's/.*averages\{0,1\}: *//')
: >"$runs"
names=(both client one)
for ((round = 0; round < rounds; round++)); do
    for ((turn = 0; turn < ${#names[@]}; turn++)); do
        run "$round" "${names[(round + turn) % ${#names[@]}]}"
    done
done

bytes=$(wc -c <"$file" | tr -d ' ')
cpu=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo 2>/dev/null | head -n 1 || true)
[[ -n $cpu ]] || cpu=$(sysctl -n machdep.cpu.brand_string 2>/dev/null || uname -m)
cat <<EOF
\$ ROUNDS=$rounds THREADS=$threads PROFILE=$profile scripts/bench_check.sh $records $shape
$(date -u +%Y-%m-%d); $cpu, $(getconf _NPROCESSORS_ONLN) cores; $(uname -sr); $(rustc --version | cut -d' ' -f1,2); $("$python" --version); together 3.1.1
file: $samples samples, $bytes bytes; load average before: $load

EOF
"$python" -I -S - "$runs" "$bytes" "$threads" <<'EOF'
import sys
from statistics import median

runs, size, threads = sys.argv[1], int(sys.argv[2]), sys.argv[3]
wall, peak = {}, {}
for row in open(runs, encoding="utf-8"):
    turn, name, seconds, kib = row.split()
    wall.setdefault(name, {})[turn] = float(seconds)
    peak.setdefault(name, []).append(int(kib) / 1024)

titles = {
    "both": f"ctxtune check, {threads} threads",
    "one": "ctxtune check, 1 thread",
    "client": "check_file of together 3.1.1 (structure only)",
}
print("| median of a run | wall s | least | most | MB/s | peak MiB |")
print("|---|---|---|---|---|---|")
for name, title in titles.items():
    times = wall[name].values()
    print(
        f"| {title} | {median(times):.3f} | {min(times):.3f} | {max(times):.3f}"
        f" | {size / median(times) / 1e6:,.0f} | {max(peak[name]):.1f} |"
    )

print("\n| median of the ratios within a round | measured | target | reached |")
print("|---|---|---|---|")
for name, target in (("both", 5), ("one", None)):
    ratio = median(wall["client"][turn] / wall[name][turn] for turn in wall[name])
    reached = "" if target is None else "yes" if ratio >= target else "no"
    print(f"| together / {titles[name]} | {ratio:.1f} | {'' if target is None else f'≥ {target}'} | {reached} |")
EOF
