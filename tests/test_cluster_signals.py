"""Signals to a batch on a cluster: which are one request, which is urgent, and the end that always comes."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

PROGRAM = """
import hashlib, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may ignore it
from queue import SimpleQueue
from maskdrop.cluster.signals import Signals
told = SimpleQueue()
signals = Signals(lambda: told.put(None), float(sys.argv[1]), float(sys.argv[2]))
with signals.heeded():
    print("ready", flush=True)
    for _ in range(int(sys.argv[3])):
        told.get()
        print(signals.number, signals.is_urgent, flush=True)
    if sys.argv[4:]:  # in a library's function that doesn't come back, in which no handler runs
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
    print(sys.stdin.readline().strip(), end=" ")
print(told.empty(), signals.is_urgent)  # once all that came has been looked at
"""

HOUR = 3600.0


@contextmanager
def heeding(same_s: float, limit_s: float, requests: int, *more: str) -> Iterator["subprocess.Popen[str]"]:
    words = [sys.executable, "-c", PROGRAM, str(same_s), str(limit_s), str(requests), *more]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert said(process) == "ready"
            yield process
        finally:
            process.kill()


def said(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_one_that_comes_again_at_once_is_the_same_request() -> None:
    """As from timeout(1), which signals its child, and then its group."""
    with heeding(HOUR, HOUR, 1) as process:
        process.send_signal(signal.SIGTERM)
        assert said(process) == "15 False"
        process.send_signal(signal.SIGTERM)
        assert process.communicate("over", timeout=60)[0] == "over True False\n"
    assert process.returncode == 0


def test_another_one_is_urgent_at_once() -> None:
    with heeding(HOUR, HOUR, 2) as process:
        process.send_signal(signal.SIGTERM)
        assert said(process) == "15 False"
        process.send_signal(signal.SIGINT)
        assert said(process) == "2 True"


@pytest.mark.parametrize("limit_s", [HOUR, 0.1])
def test_one_that_comes_later_is_urgent(limit_s: float) -> None:
    with heeding(0.0, limit_s, 2) as process:
        process.send_signal(signal.SIGTERM)
        assert said(process) == "15 False"
        process.send_signal(signal.SIGINT)
        assert said(process) == "2 True"
        if limit_s == HOUR:
            assert process.communicate("over", timeout=60)[0] == "over True True\n"
        assert process.wait(60) == (0 if limit_s == HOUR else 128 + signal.SIGINT)


def test_it_ends_a_process_in_which_no_handler_runs() -> None:
    with heeding(0.0, 0.1, 0, "stuck") as process:
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGHUP)
        assert process.wait(60) in (128 + signal.SIGTERM, 128 + signal.SIGHUP)
