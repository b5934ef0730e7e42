#!/usr/bin/env python3
"""`python -m ctxtune.ray` against Ray: on one machine, and on a cluster whose nodes and workers are killed.

    ray_engine.py PROGRAM CORPUS [Local|Cluster]...

PROGRAM is `ctxtune`. Needs Ray, and the package `ctxtune` on this Python's path. Ray listens on every interface: run it
in a network namespace that has only loopback (scripts/alone.sh does that). Never `ray stop`: others may run a cluster.
"""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import sys
import time

from engine import CORPUS, PROGRAM, Engine, is_alive, main, parent, tree, wait_until

# The corpus in parts of one record.
PREPARE = ["-m", "ctxtune.ray", "prepare", CORPUS, "-o", "out", "--work-dir", "work", "--part-bytes=1"]


class OnRay(Engine):
    address = "local"

    def command(self):
        return [sys.executable, *PREPARE], {"RAY_ADDRESS": self.address, "CTXTUNE_BACKOFF_SECONDS": "0.01"}


class Local(OnRay):
    """On this machine, as without a cluster."""

    def test_a_terminated_run_ends_its_tasks_and_the_next_one_starts_what_is_missing(self):
        self.hold(2)
        driver = self.start()
        pid, _ = self.held(2)
        self.wait_while_running(lambda: self.missing() == "2", "the other parts are committed")
        driver.send_signal(signal.SIGTERM)
        self.assertEqual(self.end(driver, 143), "")
        self.assertIn("run the same command again", self.said())
        self.assertFalse(is_alive(pid), "the attempt outlives the run")
        self.assertEqual(self.missing(), "2")
        self.assertFalse(self.out.exists())

        (self.room / "starts").unlink()
        self.trouble(2, 5, times=2)
        self.assert_prepared(self.start())
        self.assertEqual((self.starts(0), self.starts(2)), (0, 3))
        self.assertIn("part 2: attempt 2 of 6: error: part 2 has trouble", self.said())


class Cluster(OnRay):
    """On a cluster of four nodes, all on this machine."""

    @classmethod
    def setUpClass(cls):
        os.environ.update(RAY_USAGE_STATS_ENABLED="0")
        from ray.cluster_utils import Cluster as Nodes

        cls.nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        cls.addClassCleanup(cls.nodes.shutdown)
        cls.address = cls.nodes.address

    def setUp(self):
        super().setUp()
        # Those that a test before has killed are replaced.
        is_up = lambda node: node.all_processes["raylet"][0].process.poll() is None
        while sum(map(is_up, self.nodes.worker_nodes)) < 3:
            self.nodes.add_node(num_cpus=2)

    def test_a_killed_worker_and_a_killed_raylet_change_nothing(self):
        parts = range(6)
        self.hold(*parts)
        driver = self.start()
        workers = {part: self.held(part)[1] for part in parts}
        raylets = {part: parent(worker) for part, worker in workers.items()}
        head = self.nodes.head_node.all_processes["raylet"][0].process.pid
        on = {raylet: [part for part in parts if raylets[part] == raylet] for raylet in set(raylets.values())}
        lost = next(raylet for raylet, held in on.items() if raylet != head and len(held) == 2)
        left, ended = on[lost]
        killed = next(part for part in parts if raylets[part] != lost)
        # With its raylet gone, nobody ends what the worker of `left` has begun.
        os.kill(lost, signal.SIGKILL)
        os.kill(workers[left], signal.SIGKILL)
        os.kill(workers[killed], signal.SIGKILL)
        orphans = [left, ended, killed]
        self.release(*(part for part in parts if part not in orphans))
        self.assert_prepared(driver)
        for part in orphans:
            self.assertGreaterEqual(self.starts(part), 2, f"part {part} is run again")
        # What the lost node left behind ends now, and finds that all is done.
        zombie, _ = self.held(left)
        self.assertTrue(is_alive(zombie))
        self.release(left)
        wait_until(lambda: not is_alive(zombie), "the late attempt ends")
        self.assertTrue(tree(self.out) == self.expected, "a late attempt changed the result")

    def test_a_task_that_gives_no_answer_is_submitted_again_and_its_process_ends(self):
        self.hold(1)
        driver = self.start("--task-timeout=3")
        pid, _ = self.held(1)
        self.assert_prepared(driver)
        self.assertIn("part 1: no answer in 3 s: submitted again", self.said())
        self.assertFalse(is_alive(pid))

    def test_what_no_attempt_can_change_stops_the_run_with_its_words(self):
        for code in (1, 2, 3):
            shutil.rmtree(self.work, ignore_errors=True)
            self.trouble(3, code)
            self.assertEqual(self.end(self.start(), code), "")
            self.assertIn("error: part 3 has trouble", self.said())
        self.assertEqual(self.starts(3), 3, "no second attempt")
        self.assertFalse(self.out.exists())

    def test_trouble_that_lasts_ends_the_run_after_six_attempts(self):
        self.trouble(3, 5, times=9)
        self.end(self.start(), 5)
        self.assertEqual(self.starts(3), 6)
        self.assert_prepared(self.start())

    def test_an_interrupted_run_says_how_to_resume(self):
        self.hold(0)
        driver = self.start()
        pid, _ = self.held(0)
        driver.send_signal(signal.SIGINT)
        self.end(driver, 130)
        self.assertIn("run the same command again", self.said())
        self.assertFalse(is_alive(pid))

    def test_a_killed_driver_leaves_nothing_that_the_next_one_does_not_resume(self):
        self.hold(0)
        driver = self.start()
        self.held(0)
        driver.kill()
        driver.wait()
        self.assert_prepared(self.start())
        self.release(0)

    def test_two_runs_at_once_end_with_one_result(self):
        # The first is overtaken: its last part waits until the second has published.
        self.hold(0)
        first = self.start()
        self.held(0)
        second = self.start()
        ends = [b"", second.communicate(timeout=180)[0]]
        self.release(0)
        ends[0] = first.communicate(timeout=180)[0]
        self.assertEqual((ends, first.returncode, second.returncode), ([f"{self.out}\n".encode()] * 2, 0, 0), self.said())
        self.assertTrue(tree(self.out) == self.expected)

    def test_another_version_on_a_node_is_refused(self):
        versions = self.room / "versions"
        # The driver asks first.
        text = f"#!/bin/sh\ncase $1 in --version) echo x >>'{versions}'; echo ctxtune $(wc -l <'{versions}') ;; *) exec '{PROGRAM}' \"$@\" ;; esac\n"
        self.wrapper.write_text(text)
        self.end(self.start(), 2)
        self.assertRegex(self.said(), r"node .* has 'ctxtune \d+', and the plan is of 'ctxtune 1'")

    def test_the_driver_of_ten_thousand_parts_is_small(self):
        done = self.room / "done"
        text = """#!/bin/sh
case "$*" in
--version) echo 'ctxtune 0' ;;
*' plan '*) echo '{"plan": "00", "parts": 10000, "work_dir": "work"}' ;;
*' split '*) echo '{"shards": 0}' ;;
*' status '*parts) [ -e DONE ] && echo || echo 0-9999 ;;
*' status '*) echo ;;
*=9999) : >DONE; echo '{}' ;;
*' convert '*) head -c 2000 /dev/zero ;;
esac
"""
        self.wrapper.write_text(text.replace("DONE", str(done)))
        driver = self.start()
        peak = 0
        while driver.poll() is None:
            with contextlib.suppress(OSError):
                status = pathlib.Path(f"/proc/{driver.pid}/status").read_text()
                peak = max([peak, *map(int, re.findall(r"VmHWM:\s*(\d+) kB", status))])
            time.sleep(0.1)
        self.end(driver, 0)
        print(f"driver of 10,000 parts: {peak / 1024:.0f} MiB at most", file=sys.stderr)
        self.assertTrue(0 < peak <= 250 * 1024, peak)


if __name__ == "__main__":
    main()
