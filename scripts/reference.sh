#!/usr/bin/env bash
# Writes docs/reference/cli.md from what `ctxtune --help` knows, and docs/reference/json.md from the types that are printed.
# A test fails when a page is out of date.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

write() {
    local page
    page=$(cargo run --quiet --locked --example "$1")
    printf '%s\n' "$page" >"$2"
}

write reference docs/reference/cli.md
write reference_json docs/reference/json.md
