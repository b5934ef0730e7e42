"""Runs the program ``ctxtune`` and returns what it says as Python data.

The wheel contains the program. Where only this package is on the path, the one that the shell finds is run.
"""

from __future__ import annotations

# To import the package is quick: what only a run needs is imported by it.
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence
    from typing import IO, Any

__all__ = ["Error", "prompt", "run"]


class Error(Exception):
    """A run of ``ctxtune`` that failed."""

    code: str
    """The error's name, such as ``no_file``; it stays the same between releases."""
    message: str
    """What failed, and where."""
    hint: str
    """What to do."""
    exit_code: int
    """See "Exit codes" in docs/scripting.md."""
    document: dict[str, Any]
    """All that the run printed; empty where it ended before it could."""

    def __init__(self, code: str, message: str, hint: str, exit_code: int, document: dict[str, Any]) -> None:
        super().__init__(code, message, hint, exit_code, document)
        self.code = code
        self.message = message
        self.hint = hint
        self.exit_code = exit_code
        self.document = document

    def __str__(self) -> str:
        return f"{self.message}\nhint: {self.hint}" if self.hint else self.message


def run(*args: str | os.PathLike[str], input: str | None = None) -> dict[str, Any]:
    """Runs ``ctxtune`` with these arguments and ``--json``, and returns its JSON document.

    What it says on the way is written to ``sys.stderr``, line by line. It reads ``input``, or nothing, and asks no
    question: what costs money needs ``--yes`` or ``--max-cost``.

    Raises ``Error`` where the exit code is not 0.
    """
    import subprocess

    command = [_program(), *_with_json([os.fspath(arg) for arg in args])]
    sent = None if input is None else input.encode()
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL if sent is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        try:
            stdout = _exchange(process, sent)
        except BaseException:
            # A second SIGINT would end the program before it has stopped what is billed: after one from the
            # terminal, which it has got too, SIGTERM asks again for an orderly end.
            if os.name == "posix":
                process.terminate()
            _show(process.stderr)
            raise
    return _document(stdout, process.returncode)


def prompt(out: str | os.PathLike[str], story: str | Sequence[str]) -> list[dict[str, str]]:
    """The messages that ask for the context of ``story``, as the model was trained with them.

    ``out`` is the prepared directory of the training. A story is prose, or a list of sentences. The messages are
    for any client that chats; nothing is sent. Raises ``Error`` where there are none.
    """
    import json

    text = story if isinstance(story, str) else json.dumps(list(story), ensure_ascii=False)
    document = run("generate", "--show-prompt", "--quiet", f"--out={os.fspath(out)}", "-", input=text)
    messages: list[dict[str, str]] = document["messages"]
    return messages


def _program() -> str:
    import shutil
    import sysconfig

    name = "ctxtune.exe" if os.name == "nt" else "ctxtune"
    package = os.path.dirname(os.path.abspath(__file__))
    beside = os.path.join(os.path.dirname(package), "bin")  # of `pip install --target`, and of Ray's `py_modules`
    user = sysconfig.get_path("scripts", sysconfig.get_preferred_scheme("user"))
    for directory in (beside, sysconfig.get_path("scripts"), user):
        path = os.path.join(directory, name)
        if os.path.isfile(path):
            return path
    found = shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"the program `{name}` is neither beside this Python nor on the search path")
    return found


def _with_json(args: list[str]) -> list[str]:
    if "--json" in args:
        return args
    end = args.index("--") if "--" in args else len(args)
    return [*args[:end], "--json", *args[end:]]


def _exchange(process: subprocess.Popen[bytes], sent: bytes | None) -> bytes:
    """Sends the input, shows standard error as it comes, and returns standard output."""
    import threading

    stdout: list[bytes] = []

    def deliver() -> None:
        if process.stdin is not None and sent is not None:
            try:
                with process.stdin:
                    process.stdin.write(sent)
            except OSError:
                pass  # it ended without reading, and says why
        assert process.stdout is not None
        stdout.append(process.stdout.read())

    other = threading.Thread(target=deliver, daemon=True)
    other.start()
    _show(process.stderr)
    other.join()
    return stdout[0]


def _show(lines: IO[bytes] | None) -> None:
    # By `sys.stderr`, and in the thread that called: a notebook shows neither what goes to the process's own
    # standard error, nor under the right cell what another thread writes.
    for line in lines or ():
        sys.stderr.write(line.decode("utf-8", "replace"))
        sys.stderr.flush()


def _document(stdout: bytes, exit_code: int) -> dict[str, Any]:
    import json

    try:
        document = json.loads(stdout)
    except ValueError:
        message = f"ctxtune ended with exit code {exit_code} and printed no JSON document"
        raise Error("no_document", message, "its standard error may say why", exit_code, {}) from None
    if exit_code != 0:
        error = document.get("error") or {}
        message = error.get("message") or f"ctxtune ended with exit code {exit_code}"
        raise Error(error.get("code") or "", message, error.get("hint") or "", exit_code, document)
    result: dict[str, Any] = document
    return result
