"""Prepares a corpus on a Ray cluster: ``python -m ctxtune.ray prepare SOURCE... -o OUT [--work-dir WORK]``.

Ray places tasks and repeats those whose worker or node is lost. A task runs one ``ctxtune distributed convert`` or
``write``; which of them are done is read from WORK alone, so that duplicates and late tasks change nothing. Nothing but
what the program prints about one part crosses the driver. docs/distributed.md has the rest.
"""

from __future__ import annotations

import argparse
import heapq
import os
import signal
import subprocess
import sys
import time
import traceback

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any, NoReturn

TRY_AGAIN = 5
"""The exit code of what may succeed later; see "Exit codes" in docs/distributed.md."""
ATTEMPTS = 6
"""How often a command that ends so is run."""
OUTPUT = ["--json", "-q", "--quiet", "-v", "--verbose"]
STOPPED = {signal.SIGINT: 130, signal.SIGTERM: 143}


class Stop(Exception):
    """The end of the run: an exit code, and what is said on standard error and standard output."""

    def __init__(self, code: int, text: str = "", stdout: bytes = b"") -> None:
        super().__init__(code, text, stdout)
        self.code = code
        self.text = text
        self.stdout = stdout


def attempt(program: str | None, version: str, arguments: list[str]) -> tuple[int, bytes, str]:
    """Runs the program with these arguments in a worker; returns its exit code, standard output and standard error.

    It is sent to workers as it is, so that they need neither this module nor, with ``CTXTUNE_BIN``, this package.
    """
    import os
    import platform
    import subprocess

    parent = os.getppid()
    try:
        if program is None:
            import ctxtune

            program = ctxtune._program()
        asked = subprocess.run([program, "--version"], stdin=subprocess.DEVNULL, capture_output=True, check=False)
        found = asked.stdout.decode("utf-8", "replace").strip()
        if found != version:
            text = f"error: node {platform.node()} has {found!r}, and the plan is of {version!r}: {program}"
            return 2, b"", f"{text}\nhint: --pip WHEEL installs one version on every node"
        null, pipe = subprocess.DEVNULL, subprocess.PIPE
        child = subprocess.Popen([program, "distributed", *arguments], stdin=null, stdout=pipe, stderr=pipe)
    except (ImportError, FileNotFoundError, PermissionError) as error:
        text = f"error: node {platform.node()} has no `ctxtune`: {error}"
        return 2, b"", f"{text}\nhint: --pip WHEEL installs it on every node; CTXTUNE_BIN names it"
    except OSError as error:
        return 5, b"", f"error: cannot start {program} on node {platform.node()}: {error}"
    try:
        while True:
            try:
                # Ray cancels by KeyboardInterrupt, which a thread sees only while it runs Python.
                stdout, stderr = child.communicate(timeout=0.5)
                break
            except subprocess.TimeoutExpired:
                if os.getppid() != parent:
                    # The node is lost, which Ray sees only where its workers end.
                    child.kill()
                    os._exit(1)
    except BaseException:
        child.kill()
        child.wait()
        raise
    return child.returncode, stdout, stderr.decode("utf-8", "replace")[-8192:]


class Run:
    """One run of the driver."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.command = os.environ.get("CTXTUNE_BIN") or None
        self.caught: int | None = None
        self.is_publishing = False
        self.child: subprocess.Popen[bytes] | None = None
        self.version = self.work_dir = ""
        self.ray: Any = None
        self.running: dict[Any, Task] = {}
        self.shown = 0.0

    def catch(self) -> None:
        for number in STOPPED:
            signal.signal(number, self.stop)

    def stop(self, number: int, _frame: object) -> None:
        if self.is_publishing:
            return
        is_second, self.caught = self.caught == number, number
        if self.child is not None:
            self.child.send_signal(signal.SIGKILL if is_second else number)
        if is_second:
            os._exit(STOPPED[signal.Signals(number)])

    def check(self) -> None:
        if self.caught is not None:
            number = signal.Signals(self.caught)
            raise Stop(STOPPED[number], f"error: stopped by {number.name}")

    def sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.check()
            time.sleep(min(0.2, seconds))

    def program(self) -> str:
        if self.command is not None:
            return self.command
        import ctxtune

        try:
            return ctxtune._program()
        except FileNotFoundError as error:
            raise Stop(2, f"error: {error}") from None

    def own(self, *arguments: str) -> bytes:
        """Runs the program here, and returns its standard output; what ends with 5 is run again."""
        for number in range(ATTEMPTS):
            self.check()
            # In a session of its own: the terminal's Ctrl-C comes from us, and not while it publishes.
            command = [self.program(), *arguments]
            try:
                self.child = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True
                )
            except OSError as error:
                raise Stop(2, f"error: cannot run {command[0]}: {error.strerror}") from None
            if self.caught is not None and not self.is_publishing:
                self.child.send_signal(self.caught)
            stdout, _ = self.child.communicate()
            code, self.child = self.child.returncode, None
            if not is_to_try_again(code):
                break
            self.check()
            if number + 1 < ATTEMPTS:
                self.sleep(pause(number))
        if code != 0:
            self.check()
            # It has said why.
            raise Stop(TRY_AGAIN if is_to_try_again(code) else code, stdout=stdout)
        return stdout

    def missing(self, kind: str) -> Iterator[int]:
        listed = self.own("distributed", "status", self.work_dir, f"--missing={kind}s").decode().strip()
        for part in listed.split(",") if listed else ():
            first, _, last = part.partition("-")
            yield from range(int(first), int(last or first) + 1)

    def connect(self) -> None:
        """Connects to the cluster, or starts one on this machine; at the first call."""
        if self.ray is not None:
            return
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            import ray
        except ImportError as error:
            raise Stop(2, f"error: {error}\nhint: pip install ray") from None
        address = self.options.address or os.environ.get("RAY_ADDRESS") or "local"
        options: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
        options |= {"log_to_driver": False, "logging_level": "ERROR", "runtime_env": environment(self.options.pip)}
        try:
            ray.init(address=address, **options)
        except (ConnectionError, RuntimeError, TimeoutError, ValueError) as error:
            raise Stop(TRY_AGAIN, f"error: cannot connect to the Ray cluster {address}: {error}") from None
        finally:
            self.catch()  # Ray has handlers of its own
        self.ray = ray

    def disconnect(self) -> None:
        """Cancels what is running, waits until it has ended, and leaves the cluster."""
        if self.ray is None:
            return
        references = list(self.running)
        for reference in references:
            self.ray.cancel(reference)
        if references:
            self.ray.wait(references, num_returns=len(references), timeout=10)
        self.running.clear()
        self.ray.shutdown()
        self.ray = None

    def all(self, verb: str, kind: str, total: int) -> None:
        """Runs ``verb`` for every missing part or shard."""
        for _ in range(ATTEMPTS):
            missing = list(self.missing(kind))
            self.show(f"{verb}: {total - len(missing)} of {total} {kind}s", True)
            if not missing:
                return
            self.tasks(verb, kind, missing, total)
        raise Stop(TRY_AGAIN, f"error: {kind}s that were committed are missing again")

    def tasks(self, verb: str, kind: str, missing: list[int], total: int) -> None:
        self.connect()
        ray, running, options = self.ray, self.running, self.options
        remote = ray.remote(num_cpus=options.cpus_per_task, max_retries=-1, scheduling_strategy="SPREAD")(attempt)
        more = [self.work_dir, f"--threads={max(1, int(options.cpus_per_task))}", *self.scratch()]
        # Those that are tried again come when their time has come, the others in order.
        fresh, left = iter(missing), len(missing)
        later: list[tuple[float, int, Task]] = []
        window, counted = 0, 0.0
        while left:
            self.check()
            now = time.monotonic()
            if now - counted > 5:
                # Twice what the cluster can run now: a cluster that grows with its load has a reason to.
                cpus = ray.cluster_resources().get("CPU", 0)
                window, counted = max(8, int(2 * cpus / options.cpus_per_task)), now
            while len(running) < window:
                if later and later[0][0] <= now:
                    task = heapq.heappop(later)[2]
                else:
                    number = next(fresh, None)
                    if number is None:
                        break
                    task = Task(number, options.task_timeout)
                task.end = now + task.seconds
                arguments = [verb, f"--{kind}={task.number}", *more]
                running[remote.remote(self.command, self.version, arguments)] = task
            if not running:
                self.sleep(0.1)
                continue
            for reference in ray.wait(list(running), timeout=0.5)[0]:
                task = running.pop(reference)
                text = self.outcome(reference)
                if text is None:
                    left -= 1
                    self.show(f"{verb}: {total - left} of {total} {kind}s", False)
                    continue
                task.attempts += 1
                if task.attempts == ATTEMPTS:
                    raise Stop(TRY_AGAIN, text)
                self.say(f"{kind} {task.number}: attempt {task.attempts} of {ATTEMPTS}: {text}")
                heapq.heappush(later, (now + pause(task.attempts - 1), task.number, task))
            for reference in [reference for reference, task in running.items() if task.end < now]:
                # Its worker may live on where its node is lost, and nobody else would say so.
                task = running.pop(reference)
                ray.cancel(reference)
                self.say(f"{kind} {task.number}: no answer in {task.seconds:.0f} s: submitted again")
                task.seconds *= 2
                heapq.heappush(later, (now, task.number, task))

    def outcome(self, reference: Any) -> str | None:
        """Nothing where the task has committed, or why it is to be tried again."""
        exceptions = self.ray.exceptions
        try:
            code, _, stderr = self.ray.get(reference)
        except exceptions.RuntimeEnvSetupError as error:
            last = str(error).strip().rpartition("\n")[2]
            raise Stop(2, f"error: --pip {self.options.pip} does not install on a node: {last}") from None
        except exceptions.TaskCancelledError:
            return "cancelled"
        except exceptions.RayTaskError as error:
            raise Stop(1, f"error: a task failed: {error}") from None
        except exceptions.RayError as error:
            return str(error)
        if code == 0:
            return None
        text = stderr.strip() or f"error: it ended with {code}"
        if is_to_try_again(code):
            return text
        raise Stop(code, text)

    def scratch(self) -> list[str]:
        return [f"--scratch-dir={self.options.scratch_dir}"] if self.options.scratch_dir else []

    def prepare(self) -> bytes:
        import json

        options = self.options
        named = [f"--work-dir={options.work_dir}"] if options.work_dir else []
        self.version = self.own("--version").decode().strip()
        plan = json.loads(self.own("distributed", "plan", *named, *self.scratch(), *options.rest))
        # Workers run elsewhere.
        path = plan["work_dir"] if "://" in plan["work_dir"] else os.path.abspath(plan["work_dir"])
        self.work_dir = f"--work-dir={path}"
        try:
            self.all("convert", "part", plan["parts"])
            # It prints nothing where another run has published the result meanwhile.
            if split := self.own("distributed", "split", self.work_dir, *self.scratch()):
                self.all("write", "shard", json.loads(split)["shards"])
            self.check()
            self.is_publishing = True
            self.show("publish", True)
            self.disconnect()
            return self.own("distributed", "publish", self.work_dir, *(flag for flag in OUTPUT if flag in options.rest))
        except Stop as stop:
            if stop.code != 2 or "://" in path or os.path.exists(os.path.join(path, "plan.json")):
                raise
        self.say(f"{path} is gone: another run has published it; starting again")
        self.disconnect()
        self.is_publishing = False
        return self.prepare()

    def say(self, text: str) -> None:
        self.erase()
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

    def erase(self) -> None:
        if self.may_draw():
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()

    def show(self, text: str, is_step: bool) -> None:
        """Progress: one line that is drawn again on a terminal, elsewhere a line at each step and every ten seconds."""
        now = time.monotonic()
        if "-q" in self.options.rest or "--quiet" in self.options.rest:
            return
        if self.may_draw():
            self.erase()
            sys.stderr.write(text)
            sys.stderr.flush()
        elif is_step or now - self.shown >= 10:
            self.shown = now
            self.say(text)

    def may_draw(self) -> bool:
        return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


class Task:
    """A part or shard on its way."""

    def __init__(self, number: int, seconds: float) -> None:
        self.number = number
        self.seconds = seconds
        self.attempts = 0
        self.end = 0.0


def is_to_try_again(code: int) -> bool:
    # Also what a signal ended: the machine was about to be taken away, or out of memory.
    return code == TRY_AGAIN or code < 0 or code in STOPPED.values()


def pause(attempt: int) -> float:
    """Seconds before another attempt."""
    return float(os.environ.get("CTXTUNE_BACKOFF_SECONDS") or 1) * min(1 << attempt, 30)


def environment(pip: str | None) -> dict[str, Any]:
    if pip is None:
        return {}
    # A wheel that lies here is sent to the nodes; what else is named is installed by them.
    return {"py_modules": [os.path.abspath(pip)]} if os.path.isfile(pip) else {"pip": [pip]}


def positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise ValueError
    return number


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m ctxtune.ray",
        allow_abbrev=False,
        usage="%(prog)s prepare SOURCE... -o OUT [--work-dir WORK] [options] [options of `ctxtune distributed plan`]",
        description="Prepares a corpus on a Ray cluster: the same bytes as `ctxtune prepare`.",
        epilog=f"Exit codes: those of `ctxtune prepare`, and 5 after {ATTEMPTS} attempts at what may succeed later.",
    )
    parser.add_argument("prepare", choices=["prepare"], help=argparse.SUPPRESS)
    add = parser.add_argument
    add("--work-dir", "--work_dir", metavar="WORK", help="directory that all nodes see, for what is done so far [default: OUT.ctxtune-work]")
    add("--address", metavar="ADDRESS", help="the cluster [default: $RAY_ADDRESS, else one that is started on this machine]")
    add("--pip", metavar="WHEEL|SPEC", help="wheel, or requirement of pip, that installs ctxtune on the nodes")
    add("--scratch-dir", "--scratch_dir", metavar="DIR", help="directory on every machine for temporary files [default: TMPDIR]")
    add("--cpus-per-task", type=positive, default=1.0, metavar="N", help="CPUs of its node, and threads, that a task takes [default: 1]")
    add("--task-timeout", type=positive, default=3600.0, metavar="SECONDS",
        help="submit a task again that has not ended after so long; each time after twice as long [default: 3600]")  # fmt: skip
    arguments = list(arguments)
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options, rest = parser.parse_known_args(arguments[:end])
    options.rest = rest + arguments[end:]
    return options


def main(arguments: Sequence[str]) -> NoReturn:
    run = Run(parse(arguments))
    # Ray writes to standard output; it is only ours.
    stdout = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    run.catch()
    code = 0
    try:
        published = run.prepare()
        run.erase()
        stdout.write(published)
        stdout.flush()
    except Stop as stop:
        code = stop.code
        stdout.write(stop.stdout)
        stdout.flush()
        if stop.text:
            run.say(stop.text)
        if code in STOPPED.values() or code == TRY_AGAIN:
            run.say("hint: what is committed is kept: run the same command again to resume")
    except BaseException:
        code = 1
        traceback.print_exc()
    finally:
        # It must not hold up the end: `sys.exit` while tasks run may end with 1.
        try:
            run.disconnect()
        finally:
            sys.stderr.flush()
            os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1:])
