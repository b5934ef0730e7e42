#!/usr/bin/env bash
# From records to a tuned model, step by step, as a script: prepare, upload, submit, monitor.
#
#   scripts/prepare_and_submit.sh DATA_DIR OUT [flags of submit and monitor]
#   scripts/prepare_and_submit.sh contexts out --max-cost 5 --n-epochs 2 -- --timeout 8h
#
# `ctxtune finetune` does the same in one command; this shows where a script can look in between. Flags
# before `--` go to submit, those behind it to monitor. Without --max-cost in them the price is agreed to.
# Run again, it resumes where it stopped: nothing is uploaded, created or paid twice.
#
# stdout: the tuned model's name.
# Exit codes: 0 done, 6 the job failed, 7 it was cancelled, 8 it still runs, else those of the step that failed.
# CTXTUNE names the program [default: ctxtune]. Needs jq.
set -euo pipefail

usage() {
    sed -n '2,/^set /{/^set /d; s/^# \{0,1\}//; p;}' "$0"
}

case "${1:-}" in
    -h | --help)
        usage
        exit 0
        ;;
esac
if [ "$#" -lt 2 ]; then
    usage >&2
    exit 2
fi
data=$1
out=$2
shift 2

submit_flags=("$out")
consent=--yes
while [ "$#" -gt 0 ] && [ "$1" != -- ]; do
    # A cap is a consent of its own.
    case "$1" in --max-cost | --max-cost=*) consent= ;; esac
    submit_flags+=("$1")
    shift
done
[ "$#" -eq 0 ] || shift
[ -z "$consent" ] || submit_flags+=("$consent")

ctxtune=${CTXTUNE:-ctxtune}
command -v jq > /dev/null || {
    echo "jq is needed" >&2
    exit 2
}

# Each step prints one JSON document and leaves its exit code to `set -e`.
records=$("$ctxtune" prepare "$data" -o "$out" --json | jq -r '.train.records')
echo "prepared: $records training examples" >&2
"$ctxtune" upload "$out" --json | jq -r '.uploads[]? | "uploaded: \(.name) \(.file_id)"' >&2
job=$("$ctxtune" submit "${submit_flags[@]}" --json | jq -r '.job')
echo "job: $job" >&2

# How it ends is worth more than "it failed": 6 and 7 are for a person, 8 is for another day.
rc=0
model=$("$ctxtune" monitor "$job" "$@") || rc=$?
case "$rc" in
    0) echo "$model" ;;
    6) echo "the job $job failed: see above; --new-job pays for another one" >&2 ;;
    7) echo "the job $job was cancelled" >&2 ;;
    8) echo "the job $job still runs: $ctxtune monitor $job" >&2 ;;
    *) echo "watching ended with exit code $rc; the job $job runs on" >&2 ;;
esac
exit "$rc"
