#!/usr/bin/env python3
"""`ctxtune distributed slurm --submit` against Slurm: a controller and three nodes on this machine, some of them killed.

    slurm_engine.py PROGRAM CORPUS [TEST]...

Needs slurmctld, slurmd and sbatch (Debian: slurm-wlm), root, and a network with only loopback that has a second address
(scripts/alone.sh).
"""

import os
import pathlib
import signal
import socket
import subprocess
import tempfile

from engine import CORPUS, PROGRAM, Engine, is_alive, main, parent, tree, wait_until

# No authentication, no accounting, no control groups: nothing but what starts tasks and notices that a node is lost.
CONFIGURATION = """
ClusterName=here
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/none
CredType=cred/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SlurmUser=root
StateSaveLocation={room}/state
SlurmdSpoolDir={room}/spool-%n
SlurmctldPidFile={room}/slurmctld.pid
SlurmdPidFile={room}/%n.pid
SlurmctldLogFile={room}/slurmctld.log
SlurmdLogFile={room}/%n.log
ReturnToService=2
SlurmdTimeout=10
KillWait=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MaxArraySize=8
NodeName=n[1-3] NodeHostname={host} NodeAddr=127.0.0.1 Port=17001-17003 CPUs=2 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=none Nodes=n1 State=DOWN
"""
NODES = ("n1", "n2", "n3")


def said(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


class Slurm(Engine):
    @classmethod
    def setUpClass(cls):
        room = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        cls.addClassCleanup(room.cleanup)
        cls.cluster = pathlib.Path(room.name)
        (cls.cluster / "state").mkdir()
        configuration = cls.cluster / "slurm.conf"
        configuration.write_text(CONFIGURATION.format(host=socket.gethostname().split(".")[0], room=cls.cluster))
        os.environ["SLURM_CONF"] = str(configuration)
        subprocess.run(["slurmctld"], check=True)
        cls.addClassCleanup(lambda: os.kill(cls.daemon("slurmctld"), signal.SIGTERM))

    @classmethod
    def daemon(cls, name):
        return int((cls.cluster / f"{name}.pid").read_text())

    def setUp(self):
        super().setUp()
        for node in NODES:
            # Those that a test before has killed are replaced.
            if not (self.cluster / f"{node}.pid").exists() or not is_alive(self.daemon(node)):
                (self.cluster / f"spool-{node}").mkdir(exist_ok=True)
                subprocess.run(["slurmd", "-N", node], check=True)
        wait_until(lambda: said("sinfo", "-h", "-p", "all", "-t", "idle", "-o", "%D") == "3", "three nodes are idle")
        # A directory that Slurm and a shell read in several ways.
        self.work = self.room / "it's 100% work"
        plan = [PROGRAM, "distributed", "plan", CORPUS, "-o", self.out, "--work-dir", self.work, "--part-bytes=1"]
        subprocess.run(plan, check=True, stdout=subprocess.DEVNULL)

    def command(self):
        return [PROGRAM, "distributed", "slurm", "--work-dir", self.work, "--submit", "--"], {}

    def jobs(self):
        return said("squeue", "-h", "-o", "%i %T")

    def assert_prepared(self, driver):
        self.assertEqual(self.end(driver, 0), f"{self.out}\n", self.said())
        self.assertTrue(tree(self.out) == self.expected, "other bytes than those of prepare")
        self.assertFalse(self.work.exists(), "WORK stays")

    def test_a_killed_node_changes_nothing(self):
        # An array has at most eight tasks: of three parts each.
        self.hold("0-2")
        driver = self.start("--partition=all", "--comment=a 'b' \"c\"")
        late, script = self.held("0-2")
        environment = pathlib.Path(f"/proc/{script}/environ").read_bytes().split(b"\0")
        node = next(line.decode()[16:] for line in environment if line.startswith(b"SLURMD_NODENAME="))
        for pid in (self.daemon(node), parent(script), script):
            os.kill(pid, signal.SIGKILL)
        self.assert_prepared(driver)
        self.assertEqual([self.starts(part) for part in range(3)], [1, 1, 1], "the parts are converted again")
        # What the lost node left behind ends now, and finds that all is done.
        self.assertTrue(is_alive(late))
        self.release("0-2")
        wait_until(lambda: not is_alive(late), "the late attempt ends")
        self.assertTrue(tree(self.out) == self.expected, "a late attempt changed the result")

    def test_a_stopped_run_cancels_its_tasks_and_the_next_one_starts_what_is_missing(self):
        for number, code, parts in ((signal.SIGTERM, 143, "0-2"), (signal.SIGINT, 130, "0")):
            self.hold(parts)
            driver = self.start()
            pid, _ = self.held(parts)
            wait_until(lambda parts=parts: self.missing() == parts, "the other parts are committed")
            driver.send_signal(number)
            self.end(driver, code)
            self.assertIn("same command again", self.said())
            wait_until(lambda pid=pid: not is_alive(pid), "the task ends")
            wait_until(lambda: not self.jobs(), "no job is left")
        (self.room / "starts").unlink()
        self.assert_prepared(self.start())
        self.assertEqual((self.room / "starts").read_text().count("convert"), 1)

    def test_what_no_attempt_can_change_stops_the_run_with_its_words(self):
        self.trouble("3-5", 3)
        self.hold("0-2")
        self.assertEqual(self.end(self.start(), 3), "")
        self.assertIn("exit code 3: part 3-5 has trouble", self.said())
        wait_until(lambda: not self.jobs(), "the other tasks are cancelled")
        self.assertFalse(self.out.exists())

    def test_trouble_that_passes_is_tried_again(self):
        self.trouble("3-5", 5)
        self.trouble("3", 5)
        self.assert_prepared(self.start())
        self.assertEqual([self.starts(parts) for parts in ("3-5", "3", "4")], [1, 2, 1])

    def test_a_job_that_slurm_refuses_is_said_in_its_words(self):
        self.end(self.start("--partition=nowhere"), 5)
        self.assertIn("invalid partition", self.said())


if __name__ == "__main__":
    main()
