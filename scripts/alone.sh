#!/usr/bin/env bash
# Runs a command where the network is loopback only and every process that it leaves ends with it: for tests of engines,
# which listen on every interface and start daemons. Needs Linux and root; without them it says so and exits with 77.
#
#   scripts/alone.sh COMMAND...
set -euo pipefail

if ! unshare -n -p -f --mount-proc true 2>/dev/null; then
    printf 'warning: a network namespace needs Linux and root: not tried here: %s\n' "$*" >&2
    exit 77
fi
# Slurm wants a second address.
exec unshare -n -p -f --mount-proc --kill-child \
    bash -c 'ip link set lo up && ip address add 127.0.0.2/8 dev lo && "$@"' alone "$@"
