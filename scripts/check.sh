#!/usr/bin/env bash
# Everything a change must pass, in the order in which it fails fastest.
# Runs on a developer's machine and in CI alike: scripts/check.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

step() {
    local start=$SECONDS
    printf '\n==> %s\n' "$*"
    "$@"
    printf '    %d s\n' $((SECONDS - start))
}

step cargo fmt --all --check
step cargo clippy --workspace --all-targets --locked -- -D warnings
# Tests have the feature `cloud`; a plain build has not.
step cargo clippy --locked -- -D warnings
step cargo test --locked
step env RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --locked

printf '\n==> all checks passed\n'
