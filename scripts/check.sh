#!/usr/bin/env bash
# Everything a change must pass, in the order in which it fails fastest.
# Runs on a developer's machine and in CI alike: scripts/check.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

step() {
    printf '\n==> %s\n' "$*"
    "$@"
}

step cargo fmt --check
step cargo clippy --all-targets --locked -- -D warnings
step cargo test --locked
step env RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --locked

printf '\n==> all checks passed\n'
