"""The rehearsal server as a process, for every client that is driven through it."""

import json
import signal
import subprocess
import sys
import time
import urllib.request


class Server:
    """`ctxtune rehearse --serve` with some flags; violations fail when it is left."""

    def __init__(self, program, *flags):
        self.program = program
        command = [program, "rehearse", "--serve", *flags]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().strip()
        assert self.url.startswith("http://127.0.0.1:"), self.process.communicate()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.process.send_signal(signal.SIGTERM)
        said = self.process.communicate(timeout=30)[1]
        if kind is None:
            assert self.process.returncode == 143, (self.process.returncode, said)
            assert ", 0 violations" in said, said
        else:
            print(said, file=sys.stderr)

    def look(self, what):
        """What arrived at the W&B part: `runs` or `sweeps`. These paths are no part of the API."""
        with urllib.request.urlopen(f"{self.url}/rehearsal/wandb/{what}", timeout=30) as reply:
            return json.load(reply)

    def press_stop(self, run):
        self.act(run, "stop")

    def delete_run(self, run):
        self.act(run, "delete")

    def act(self, run, what):
        """Does what somebody does on a run's page."""
        urllib.request.urlopen(f"{self.url}/rehearsal/wandb/runs/{run}/{what}", data=b"", timeout=30).close()


def wait(ask, is_done):
    """Asks until the answer will do, for at most half a minute."""
    for _ in range(300):
        answer = ask()
        if is_done(answer):
            return answer
        time.sleep(0.1)
    raise AssertionError(f"still {answer}")
