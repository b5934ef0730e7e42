#!/usr/bin/env python3
"""The package `ctxtune` with a program: what `run` and `prompt` promise, and README's Python.

    python_package.py REPOSITORY [BIN]

Tests the package that this Python imports. Where it is not installed, BIN is the directory of the program. Needs the
standard library only.
"""

import contextlib
import io
import json
import os
import pathlib
import pickle
import re
import shutil
import sys
import tempfile
import unittest

import ctxtune

REPOSITORY = pathlib.Path(sys.argv[1]).resolve()
CONTEXTS = REPOSITORY / "fixtures" / "contexts"

OWN_TEMPLATE = r"""
messages:
- {role: system, content: 'Só: "{{story}}" {x}'}
- {role: user, content: "of {story}\n"}
- {role: assistant, content: '{context}'}
"""


class Package(unittest.TestCase):
    def setUp(self):
        room = tempfile.TemporaryDirectory()
        self.addCleanup(room.cleanup)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(room.name)

    def fails(self, *args):
        with contextlib.redirect_stderr(io.StringIO()), self.assertRaises(ctxtune.Error) as caught:
            ctxtune.run(*args)
        return caught.exception

    def test_a_prompt_is_the_beginning_of_the_training_line_of_every_example(self):
        pathlib.Path("own.yaml").write_text(OWN_TEMPLATE, "utf-8")
        for template in ("chatml", "own.yaml"):
            out = pathlib.Path("out of " + template)
            ctxtune.run("prepare", CONTEXTS, "--quiet", "--output-dir", out, "--template", template)
            lines = {side: (out / f"{side}.jsonl").read_text("utf-8").split("\n") for side in ("train", "val")}
            rows = [row.split("\t") for row in (out / "keys.tsv").read_text("utf-8").splitlines()[1:]]
            self.assertEqual(len(rows), 24)
            for side, line, _, key in rows:
                record = json.loads((CONTEXTS / json.loads(key)).read_text("utf-8"))
                trained = json.loads(lines[side][int(line) - 1])["messages"]
                self.assertEqual(ctxtune.prompt(out, record["story"]), trained[:-1], key)

    def test_a_prompt_takes_sentences_and_a_directory_of_any_name(self):
        out = pathlib.Path("--out é")
        ctxtune.run("prepare", CONTEXTS, "--quiet", f"--output-dir={out}")
        expected = ctxtune.prompt(out, "- Mia left. Noé ran.")
        self.assertTrue(expected[-1]["content"].endswith("\n\n- Mia left. Noé ran."), expected)
        self.assertEqual(ctxtune.prompt(out, ["- Mia left.", "Noé ran."]), expected)
        self.assertEqual(ctxtune.prompt(out, "['- Mia left.', 'Noé ran.']"), expected)

    def test_progress_goes_where_sys_stderr_goes(self):
        # As in a notebook, where it is not the process's own.
        with contextlib.redirect_stderr(io.StringIO()) as stderr:
            document = ctxtune.run("prepare", CONTEXTS, "--output-dir", "out")
        self.assertEqual((document["command"], document["counts"]["accepted"]), ("prepare", 24))
        self.assertIn("accepted  24", stderr.getvalue())

    def test_a_failed_run_is_an_exception_with_all_that_the_document_says(self):
        error = self.fails("check", pathlib.Path("no", "where"))
        self.assertEqual((error.code, error.exit_code), ("no_file", 2))
        self.assertIn(os.path.join("no", "where"), error.message)
        self.assertEqual(error.document["error"], {"code": error.code, "message": error.message, "hint": error.hint})
        self.assertEqual(str(error), f"{error.message}\nhint: {error.hint}")
        again = pickle.loads(pickle.dumps(error))
        self.assertEqual((again.args, again.document), (error.args, error.document))

    def test_arguments_are_passed_as_they_are(self):
        self.assertEqual(self.fails("prepare", "--nonsense").code, "usage")
        # The flag stands before `--`, behind which all is a path.
        self.assertIn("no such", self.fails("prepare", "--output-dir=out", "--", "no such").message)
        self.assertEqual(ctxtune.run("prepare", CONTEXTS, "--json", "-qo", "out")["ok"], True)

    def test_a_run_that_prints_no_document_is_an_exception(self):
        error = self.fails("completions", "bash")
        self.assertEqual((error.code, error.document.get("command")), ("usage", "completions"))
        error = self.fails("--version")
        self.assertEqual((error.code, error.exit_code, error.document), ("no_document", 0, {}))

    def test_input_is_read_and_there_is_none_without(self):
        self.assertEqual(self.fails("generate", "--show-prompt", "-").code, "story")
        shown = ctxtune.run("generate", "--show-prompt", "-", input="Mia left.")
        self.assertTrue(shown["messages"][-1]["content"].endswith("Mia left."), shown)
        with self.assertRaises(UnicodeEncodeError):
            ctxtune.run("generate", "--show-prompt", "-", input="half a character: \ud800")
        # More than a pipe holds, for a run that does not read it.
        self.assertEqual(ctxtune.run("prepare", CONTEXTS, "-qo", "out", input="x" * (1 << 20))["ok"], True)

    def test_the_python_of_the_pages_runs(self):
        shutil.copytree(CONTEXTS, pathlib.Path("fixtures", "contexts"))
        for page in ("README.md", "docs/scripting.md"):
            fences = re.findall(r"^```python\n(.*?)^```", (REPOSITORY / page).read_text("utf-8"), re.M | re.S)
            self.assertTrue(fences, page)
            for fence in fences:
                with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
                    exec(compile(fence, page, "exec"), {})


if __name__ == "__main__":
    if len(sys.argv) > 2:
        os.environ["PATH"] = sys.argv[2] + os.pathsep + os.environ["PATH"]
    unittest.main(argv=sys.argv[:1])
