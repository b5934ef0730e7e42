#!/usr/bin/env bash
# Writes docs/reference/cli.md from what `ctxtune --help` knows. A test fails when the page is out of date.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

page=$(cargo run --quiet --locked --example reference)
printf '%s\n' "$page" >docs/reference/cli.md
