"""Runs a command without its output and prints wall, user and system seconds and peak RSS in KiB.

    python3 -I -S scripts/measure.py COMMAND [ARGUMENT...]

A child's peak begins at its parent's size, hence an interpreter without site packages:
peaks below its own 8 MiB or so cannot be told apart.
"""

import os
import sys
import time

null = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
start = time.perf_counter()
pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=null)
_, status, usage = os.wait4(pid, 0)
wall = time.perf_counter() - start
code = os.waitstatus_to_exitcode(status)
if code:
    sys.exit(f"{sys.argv[1:]} ended with {code}")
peak = usage.ru_maxrss // (1024 if sys.platform == "darwin" else 1)
print(f"{wall:.6f}\t{usage.ru_utime:.6f}\t{usage.ru_stime:.6f}\t{peak}")
