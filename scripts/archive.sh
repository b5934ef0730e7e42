#!/usr/bin/env bash
# Packs the program of one system with its manual pages, completions and licences, as a release has it.
#
#   scripts/archive.sh TARGET PROGRAM [DIR]
#
# PROGRAM is what Cargo built for TARGET, such as target/x86_64-unknown-linux-musl/release/ctxtune. Writes
# DIR/ctxtune-VERSION-TARGET.tar.gz; DIR is dist. `package.metadata.binstall` in Cargo.toml has the same names.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=$1
program=$2
dir=${3:-dist}

# Of the machine that packs, which cannot always run PROGRAM.
version=$(sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"/\1/p' Cargo.toml)
name=ctxtune-$version-$target

room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
mkdir -p "$dir" "$room/$name"
cp "$program" README.md CHANGELOG.md LICENSE-MIT LICENSE-APACHE "$room/$name/"
cargo run --quiet --locked --example manuals "$room/$name"
tar -czf "$dir/$name.tar.gz" -C "$room" "$name"
ls -l "$dir/$name.tar.gz" >&2
