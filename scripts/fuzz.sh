#!/usr/bin/env bash
# Fuzzes what reads bytes from elsewhere: records, stories, training files, archives, `.env`, answers.
#
#   scripts/fuzz.sh [SECONDS=600] [TARGET...]
#
# Without a TARGET every one in fuzz/fuzz_targets runs, one after the other, and the table at the end says how many
# inputs each took. A crash ends the script with 1; its input is in target/fuzz/artifacts/TARGET and becomes a test.
# SEED=N repeats a run (0, the default, is a new one).
# Needs cargo-fuzz (`cargo install cargo-fuzz --locked`) and a C++ compiler. No nightly toolchain: RUSTC_BOOTSTRAP
# lets the stable one instrument, without a sanitizer, since there is no `unsafe` of ours to watch.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=${1:-600}
shift || true
targets=("$@")
if ((${#targets[@]} == 0)); then
    for file in fuzz/fuzz_targets/*.rs; do targets+=("$(basename "$file" .rs)"); done
fi
work=$PWD/target/fuzz
export RUSTC_BOOTSTRAP=1

cargo fuzz --version >/dev/null 2>&1 || {
    echo 'error: cargo-fuzz is missing' >&2
    echo 'hint: cargo install cargo-fuzz --locked' >&2
    exit 1
}

# seed TARGET: inputs to begin with, from the repository's own fixtures.
seed() {
    local seeds=$work/corpus/$1
    mkdir -p "$seeds"
    case $1 in
        record) cp fixtures/contexts/*.json fixtures/malformed/* "$seeds" ;;
        check_line) find fixtures/golden -name '*.jsonl' -exec sh -c 'head -n 2 "$1" >"$2/${1##*/}"' _ {} "$seeds" \; ;;
        story) python3 - "$seeds" <<'PYTHON' ;;
import json, pathlib, sys
for path in pathlib.Path("fixtures/contexts").glob("*.json"):
    story = json.loads(path.read_text())["story"]
    if isinstance(story, str):  # others are lists
        (pathlib.Path(sys.argv[1]) / path.stem).write_text(story)
PYTHON
        archive) python3 - "$seeds" <<'PYTHON' ;;
import gzip, io, pathlib, sys, tarfile
records = [path.read_bytes() for path in sorted(pathlib.Path("fixtures/contexts").glob("*.json"))[:2]]
seeds = pathlib.Path(sys.argv[1])
for format in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=format) as tar:
        for name in ("a.json", "b" * 100 + "/" + "c" * 60 + ".json", "d.txt"):
            member = tarfile.TarInfo(name)
            member.size = len(records[0])
            tar.addfile(member, io.BytesIO(records[0]))
        link = tarfile.TarInfo("link.json")
        link.type, link.linkname = tarfile.LNKTYPE, "a.json"
        tar.addfile(link)
    (seeds / f"tar-{format}").write_bytes(b"\0" + archive.getvalue())
    (seeds / f"tar-gz-{format}").write_bytes(b"\2" + gzip.compress(archive.getvalue()))
lines = b"\n".join(record.replace(b"\n", b" ") for record in records)
(seeds / "jsonl").write_bytes(b"\1" + lines)
(seeds / "jsonl-gz").write_bytes(b"\3" + gzip.compress(lines))
PYTHON
        dotenv) printf 'export KEY="a\\n${HOME}" # c\nOTHER=%s\n' "'x y'" >"$seeds/seed" ;;
        *) ;;
    esac
}

summary=()
for target in "${targets[@]}"; do
    seed "$target"
    mkdir -p "$work/artifacts/$target"
    log=$work/$target.log
    options=(-seed="${SEED:-0}" -max_total_time="$seconds" -print_final_stats=1 -max_len=65536 -timeout=10 -rss_limit_mb=4096
        -artifact_prefix="$work/artifacts/$target/")
    case $target in record | story | check_line) options+=(-dict=fuzz/record.dict) ;; esac
    if cargo fuzz run --sanitizer none --target-dir "$work/build" "$target" "$work/corpus/$target" -- "${options[@]}" >"$log" 2>&1; then
        executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
        summary+=("$(printf '%-12s %12s executions in %s s' "$target" "$executions" "$seconds")")
        printf '%s\n' "${summary[-1]}"
    else
        tail -n 40 "$log" >&2
        echo "error: $target crashed or did not build; see $log" >&2
        exit 1
    fi
done
