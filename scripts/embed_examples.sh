#!/usr/bin/env bash
# Writes crates/rehearsal/src/corpus.json: the records of fixtures/contexts in one file, so that the crate that embeds
# them can be packaged by itself. A test says when it is stale.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python3 - <<'PYTHON'
import json, pathlib
root = pathlib.Path("fixtures/contexts")
records = {path.relative_to(root).as_posix(): path.read_text("utf-8") for path in sorted(root.rglob("*.json"))}
text = json.dumps(records, ensure_ascii=False, indent=1) + "\n"
pathlib.Path("crates/rehearsal/src/corpus.json").write_text(text, "utf-8")
PYTHON
