"""What the tests of engines share: the corpus as `prepare` converts it, and a program whose attempts wait or fail.

Its importer is run as `NAME.py PROGRAM CORPUS [TEST]...`.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import time
import unittest

PROGRAM, CORPUS = (os.path.abspath(path) for path in sys.argv[1:3])

# Stands for `ctxtune` in tasks: one line a start; the first attempt at a held part waits for its file `go-N`, and for the
# parts in `fails` it ends with that exit code as often as there are lines.
WRAPPER = """#!/bin/sh
case "$*" in *--version) exec '{program}' "$@" ;; esac
echo "$$ $PPID $*" >>'{room}/starts'
for argument; do case $argument in
--part=*)
    n=${{argument#--part=}}
    if [ -e '{room}/hold-'$n ] && mkdir '{room}/held-'$n 2>/dev/null; then
        echo "$$ $PPID" >'{room}/pids-'$n.new && mv '{room}/pids-'$n.new '{room}/pids-'$n
        until [ -e '{room}/go-'$n ]; do sleep 0.05; done
    fi
    for code in '{room}/fail-'$n.*; do
        if [ -e "$code" ] && rm "$code"; then
            echo "error: part $n has trouble" >&2
            exit "${{code##*.}}"
        fi
    done ;;
esac; done
exec '{program}' "$@"
"""


def wait_until(is_so, what, seconds=90):
    end = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > end:
            raise AssertionError(f"not in {seconds} s: {what}")
        time.sleep(0.05)


def is_alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def parent(pid):
    return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def tree(path):
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


class Engine(unittest.TestCase):
    """Tests with a directory of their own, the corpus as `prepare` converts it, and the wrapper."""

    maxDiff = 2000

    def command(self):
        """The command of the engine, and its environment."""
        raise NotImplementedError

    def setUp(self):
        room = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.addCleanup(room.cleanup)
        self.room = pathlib.Path(room.name)
        self.work, self.out = self.room / "work", self.room / "out"
        self.wrapper = self.room / "wrapper"
        self.wrapper.write_text(WRAPPER.format(program=PROGRAM, room=self.room))
        self.wrapper.chmod(0o755)
        run = [PROGRAM, "prepare", CORPUS, "-q", "-o", self.room / "expected"]
        subprocess.run(run, check=True, stdout=subprocess.DEVNULL)
        self.expected = tree(self.room / "expected")

    def start(self, *options):
        command, environment = self.command()
        self.stderr = open(self.room / "stderr", "w+")
        self.addCleanup(self.stderr.close)
        driver = subprocess.Popen(
            [*command, *options],
            cwd=self.room,
            env={**os.environ, "CTXTUNE_BIN": str(self.wrapper), **environment},
            stdout=subprocess.PIPE,
            stderr=self.stderr,
        )
        self.addCleanup(driver.stdout.close)
        self.addCleanup(driver.wait)
        self.addCleanup(driver.kill)
        self.driver = driver
        return driver

    def said(self):
        return (self.room / "stderr").read_text()

    def end(self, driver, code, seconds=180):
        stdout = driver.communicate(timeout=seconds)[0].decode()
        self.assertEqual(driver.returncode, code, self.said())
        return stdout

    def assert_prepared(self, driver):
        self.assertEqual(self.end(driver, 0), f"{self.out}\n")
        self.assertEqual(sorted(tree(self.out)), sorted(self.expected))
        self.assertTrue(tree(self.out) == self.expected, "other bytes than those of prepare")
        self.assertFalse(self.work.exists(), "WORK stays")

    def starts(self, part):
        starts = self.room / "starts"
        lines = starts.read_text().splitlines() if starts.exists() else []
        return sum(line.split().count(f"--part={part}") for line in lines)

    def hold(self, *parts):
        for part in parts:
            (self.room / f"hold-{part}").touch()

    def held(self, part):
        """The processes of the attempt that waits, and of its worker."""
        pids = self.room / f"pids-{part}"
        self.wait_while_running(pids.exists, f"part {part} is held")
        return tuple(map(int, pids.read_text().split()))

    def wait_while_running(self, is_so, what):
        wait_until(lambda: is_so() or self.driver.poll() is not None, what)
        self.assertTrue(is_so(), f"{what}: {self.said()}")

    def release(self, *parts):
        for part in parts:
            (self.room / f"go-{part}").touch()

    def trouble(self, part, code, times=1):
        for number in range(times):
            (self.room / f"fail-{part}.{number}.{code}").touch()

    def missing(self):
        status = [PROGRAM, "distributed", "status", "--work-dir", self.work, "--missing", "parts"]
        return subprocess.run(status, check=True, capture_output=True, text=True).stdout.strip()


def main():
    del sys.argv[1:3]
    unittest.main("__main__", verbosity=2)
