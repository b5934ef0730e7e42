#!/usr/bin/env bash
# How many objects a second are read from a bucket on this machine, beside a plain loop (examples/bucket_rate.rs).
# At least 80 % is asked for, of a plain loop that reads at least 5,000 a second.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cargo run --quiet --release --locked --example bucket_rate
