#!/usr/bin/env bash
# Builds the sdist, and the wheel from the sdist alone.
#
#   scripts/wheel.sh [DIR] [PROFILE]
#
# Both files go to DIR (dist). PROFILE is Cargo's: release (minutes), or dev (seconds after `cargo build`), for trying the
# wheel. Needs maturin (`pip install maturin`), a Rust toolchain and a C compiler.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

dir=${1:-dist}
profile=${2:-release}
if ! command -v maturin >/dev/null; then
    printf 'error: maturin, which builds wheels, is missing\nhint: pip install maturin\n' >&2
    exit 1
fi

mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
# Always the same place, and the target directory of the checkout: what was compiled is found again.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
unpacked=$CARGO_TARGET_DIR/sdist

rm -rf "$unpacked"
mkdir -p "$unpacked"
maturin sdist --out "$unpacked"
sdist=$(cd "$unpacked" && echo ctxtune-*.tar.gz)
# As new: Cargo would take the files of an earlier sdist, which lay there under the same times, for these.
tar -xzmf "$unpacked/$sdist" -C "$unpacked"
(cd "$unpacked/${sdist%.tar.gz}" && maturin build --profile "$profile" --out "$dir")
mv "$unpacked/$sdist" "$dir/"
ls -l "$dir" >&2
