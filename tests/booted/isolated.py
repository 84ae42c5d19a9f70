"""Programs that take everything they started, and every mount they made, with them when they end."""

import contextlib
import os
import signal
import subprocess

ISOLATED = (
    # Kills it when its parent dies, however that dies.
    *("setpriv", "--pdeathsig", "KILL"),
    # The first process of a process namespace takes all others of it along, and a mount namespace its mounts.
    *("unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"),
)
"""Begins a command that needs root and is to leave nothing behind."""


def why_not_isolated() -> str | None:
    """Why such a command can't be run here; None if it can."""
    probe = subprocess.run([*ISOLATED, "true"], capture_output=True, text=True, check=False)
    if probe.returncode == 0:
        return None
    said = probe.stderr.strip()
    return f"no mount and process namespaces can be made here: {said}"


class TookTooLong(AssertionError):
    """A command was killed at its deadline; the message has what it said until then."""


def finish(command: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
    """Run a command and whatever it starts, for so many seconds at most; what it says is one text.

    Raises:
        TookTooLong: it was killed.
    """
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=seconds)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            raise TookTooLong(f"{command!r} took longer than {seconds:.0f} s; it said:\n{output}") from None
    return subprocess.CompletedProcess(command, process.returncode, output)
