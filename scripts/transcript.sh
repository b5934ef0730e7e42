#!/usr/bin/env bash
# Makes docs/transcript.md: what a terminal shows of the seed's own command line, against the rehearsal server.
#
#   scripts/transcript.sh [CTXTUNE]
#
# CTXTUNE is the program; without it, it is built. Needs tmux, which is the terminal: 80 and 120 columns,
# `TERM=dumb`, and `NO_COLOR`. Ids, ports and times are replaced by fixed ones of the same length.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

ctxtune=${1:-}
if [[ -z $ctxtune ]]; then
    cargo build --locked
    ctxtune=${CARGO_TARGET_DIR:-target}/debug/ctxtune
fi
ctxtune=$(realpath "$ctxtune")
contexts=$PWD/fixtures/contexts
page=$PWD/docs/transcript.md
readonly COMMAND='ctxtune finetune --config-path=training/finetune_config.yaml \
  --data-dir=contexts --output-dir=training/output'

room=$(mktemp -d)
terminal=ctxtune-transcript-$$
server=
end() {
    tmux -L "$terminal" kill-server 2>/dev/null || true
    [[ -z $server ]] || kill "$server" 2>/dev/null || true
    rm -rf "$room"
}
trap end EXIT

# Waits until the terminal shows $1.
shows() {
    for _ in $(seq 600); do
        if tmux -L "$terminal" capture-pane -p -S - | grep -qF -- "$1"; then return; fi
        sleep 0.1
    done
    tmux -L "$terminal" capture-pane -p -S - >&2
    echo "error: the terminal does not show: $1" >&2
    exit 1
}

# Runs the command at a terminal of $2 columns with the TERM $3 and the variables $4, into $room/$1.txt.
record() {
    local name=$1 columns=$2 term=$3 variables=${4:-}
    local scene=$room/$name
    mkdir -p "$scene/bin" "$scene/training"
    ln -s "$ctxtune" "$scene/bin/ctxtune"
    cp -R "$contexts" "$scene/contexts"
    cat >"$scene/training/finetune_config.yaml" <<'YAML'
base_model: meta-llama/Meta-Llama-3.1-8B-Instruct
n_epochs: 3
learning_rate: 1.0e-5
batch_size: "max"
lora: true
lora_rank: 64
lora_alpha: 16
val_ratio: 0.1
wandb_project: social-world-model-finetuning
wandb_run_name: null
YAML
    "$ctxtune" rehearse --serve --job-seconds 6 >"$scene/url" 2>/dev/null &
    server=$!
    until [[ -s $scene/url ]]; do sleep 0.05; done
    local url
    url=$(<"$scene/url")
    local key=rehearsalrehearsalrehearsalrehearsalrehe
    cat >"$scene/rc" <<RC
export PATH='$scene/bin':\$PATH HOME='$scene' LC_ALL=C.UTF-8 TERM=$term $variables
export TOGETHER_BASE_URL=$url TOGETHER_API_KEY=rehearsal-key WANDB_BASE_URL=$url WANDB_API_KEY=$key
PS1='$ '
cd '$scene'
clear
RC
    env -u TMUX -u NO_COLOR LC_ALL=C.UTF-8 tmux -L "$terminal" -f /dev/null \
        new-session -d -x "$columns" -y 50 "bash --noprofile --rcfile '$scene/rc' -i" \; \
        set-option -g history-limit 10000 \; set-option -g status off
    sleep 1
    tmux -L "$terminal" clear-history
    tmux -L "$terminal" send-keys "$COMMAND" Enter
    shows '[y/N]'
    tmux -L "$terminal" send-keys y Enter
    shows 'next      '
    sleep 1
    tmux -L "$terminal" capture-pane -e -p -S - >"$scene/coloured"
    tmux -L "$terminal" capture-pane -p -S - | normalised >"$room/$name.txt"
    tmux -L "$terminal" kill-server
    kill "$server" && wait "$server" 2>/dev/null || true
    server=
}

# Replaces what differs from run to run, and drops the shell's last, empty prompt.
normalised() {
    sed -E \
        -e 's/(ft|file)-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/\1-01234567-89ab-cdef-0123-456789abcdef/g' \
        -e 's/ft-[0-9a-f]{8}-adapter/ft-01234567-adapter/g' \
        -e 's/ml_[0-9a-f]{32}/ml_0123456789abcdef0123456789abcdef/g' \
        -e 's/-[0-9a-f]{8}$/-01234567/' \
        -e 's/^took .*/took      0.04 s, 177.1 kB read, 4.1 MB\/s/' \
        -e 's/127\.0\.0\.1:[0-9]{5}/127.0.0.1:43210/g' \
        -e 's/[0-9]{4}-[0-9]{2}-[0-9]{2} ([0-9]{2}:[0-9]{2}:[0-9]{2}Z)/2026-11-27 \1/g' \
        -e 's/[0-9]{2}:[0-9]{2}:[0-9]{2}Z/10:00:00Z/g' \
        -e 's/ +$//' | sed -e '/./,$!d' | sed -e :a -e '/^\n*\$\{0,1\}$/{$d;N;ba' -e '}'
}

record 80 80 xterm-256color
record 120 120 xterm-256color
record dumb 80 dumb
record plain 80 xterm-256color NO_COLOR=1
if grep -q $'\e\[[0-9;]*[1-9][0-9;]*m' "$room/plain/coloured"; then
    echo "error: there is colour under NO_COLOR" >&2
    exit 1
fi

# The lines of $1 that are not shown at 80 columns.
others() {
    grep -vxF -f "$room/80.txt" "$room/$1.txt" || true
}

{
    cat <<'MARKDOWN'
# At a terminal

The seed's own command line, as a terminal shows it from beginning to end, against the rehearsal server: nothing was trained, and the prices are made
up. `scripts/transcript.sh` makes this page again, in tmux. It replaces ids, ports and times by fixed ones of the same length; the made-up curve and its
losses differ from run to run. While the job runs there is a block in place of the curve, which is redrawn.

## 80 columns

MARKDOWN
    printf '```text\n'
    cat "$room/80.txt"
    cat <<'MARKDOWN'
```

With `NO_COLOR=1` the text is the same.

## 120 columns

The lines that differ:

MARKDOWN
    printf '```text\n'
    others 120
    cat <<'MARKDOWN'
```

## `TERM=dumb`

A terminal that cannot be drawn on gets a line for each change, with the time. The lines that differ from those at 80 columns:

MARKDOWN
    printf '```text\n'
    others dumb
    printf '```\n'
} >"$page"
echo "$page"
