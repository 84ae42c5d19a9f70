"""Workers of a process that was forked in the nursery: forked too, from one with libraries imported.

multiprocessing's spawn executes a fresh interpreter, and an inference worker then imports PyTorch for
seconds. A cradle is forked before its owner has done anything, so what comes out of it holds nothing of
the owner's but what an executed process is given as well: files by number, environment, folder, masks and
the command line, whose program it runs. It reads what to do from spawn's pipe, pickled, and is a child of
the owner's, which waits for it, kills it and takes it along as ever: the process between it and the cradle
ends at once, and orphans come to the owner (prctl(2), PR_SET_CHILD_SUBREAPER).
"""

import atexit
import contextlib
import ctypes
import fcntl
import json
import os
import signal
import socket
import sys
import threading
import time
import types
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from multiprocessing import util
from pathlib import Path
from typing import Any, NoReturn

import psutil

NAME = "cradle"

MESSAGE_SIZE = 1 << 20

_MOST_FILES = 64
_ABOVE = 512
"""File numbers from here on are nobody's."""

_TO_ALL: dict[int, Any] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGHUP: signal.SIG_DFL,
}
"""Signals that reach a whole group, and what a fresh interpreter does at them."""

_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36


def linked() -> tuple[socket.socket, socket.socket]:
    """Two ends of which each gets what the other one sends, a message at a time, files too."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * MESSAGE_SIZE)
    return ends


def enter(environment: dict[str, str], folder: str, umask: int) -> None:
    """Be where an executed process would begin."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    os.umask(umask)


def started_by(pid: int) -> list[psutil.Process]:
    """All that a process has started, and what these have; but for cradles, and what is gone already."""
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.name() != NAME:
                found.append(child)
    return found


@dataclass(frozen=True)
class Birth:
    """What an executed process is given. Signals that who asks for it blocks or ignores stay so."""

    program: str
    arguments: list[str]
    files: list[int]
    environment: dict[str, str]
    folder: str
    umask: int
    blocked: list[int]
    ignored: list[int]


class Cradle:
    """The owner's end."""

    def __init__(self) -> None:
        """Fork the cradle; to be called before anything else is done."""
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        self._link, theirs = linked()
        if os.fork() == 0:
            self._link.close()
            _prctl(_PR_SET_NAME, NAME.encode())
            for number in _TO_ALL:
                signal.signal(number, signal.SIG_IGN)
            _rock(theirs)
        theirs.close()

    def take_over(self) -> None:
        """From now on what spawn would execute comes from here; if the cradle is killed, it is executed."""
        execute = util.spawnv_passfds

        def spawn(path: bytes, args: Sequence[Any], passfds: Sequence[int]) -> int:
            try:
                return self._bear(args, [int(file) for file in passfds])
            except OSError:
                return int(execute(path, args, passfds))

        util.spawnv_passfds = spawn

    def _bear(self, command: Sequence[str], files: list[int]) -> int:
        start = command.index("-c")
        blocked = [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])]
        every = signal.valid_signals()
        ignored = [int(number) for number in every if signal.getsignal(number) is signal.SIG_IGN]
        birth = Birth(
            command[start + 1],
            list(command[start + 2 :]),
            files,
            dict(os.environ),
            os.getcwd(),
            _umask(),
            blocked,
            ignored,
        )
        socket.send_fds(self._link, [json.dumps(asdict(birth)).encode()], files)
        answer = self._link.recv(MESSAGE_SIZE)
        if not answer:
            raise OSError("the cradle is gone")
        return int(answer)


def _rock(link: socket.socket) -> None:
    """The cradle: fork what is asked for until the owner is gone. Only what is forked returns."""
    while True:
        message, files, _, _ = socket.recv_fds(link, MESSAGE_SIZE, _MOST_FILES)
        if not message:
            os._exit(0)
        between = os.fork()
        if between == 0:
            break
        os.waitpid(between, 0)
        for file in files:
            os.close(file)
    between = os.getpid()
    if os.fork():
        os._exit(0)
    while os.getppid() == between:
        time.sleep(0.0002)
    link.send(str(os.getpid()).encode())
    _be(Birth(**json.loads(message)), files)


def _be(birth: Birth, files: list[int]) -> None:
    """Be what would have been executed."""
    _prctl(_PR_SET_NAME, b"python")
    aside = [fcntl.fcntl(file, fcntl.F_DUPFD, _ABOVE) for file in files]
    os.closerange(3, _ABOVE)
    for source, number in zip(aside, birth.files, strict=True):
        os.dup2(source, number)
        os.close(source)
    enter(birth.environment, birth.folder, birth.umask)
    for number, handler in (_TO_ALL | dict.fromkeys(birth.ignored, signal.SIG_IGN)).items():
        signal.signal(number, handler)
    sys.argv = ["-c", *birth.arguments]
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    signal.pthread_sigmask(signal.SIG_SETMASK, birth.blocked)
    be_to_the_end(lambda: exec(birth.program, main.__dict__))


def be_to_the_end(program: Callable[[], object]) -> NoReturn:
    """Run a program and end as Python does, but for taking its modules apart: that would copy all the memory
    that is shared with whom this process was forked from."""
    code: object = 0
    try:
        program()
    except SystemExit as end:
        code = end.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    if code is None or isinstance(code, int):
        code = code or 0
    else:
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]  # waits for those that are no daemons
    atexit._run_exitfuncs()
    try:
        for file in (sys.stdout, sys.stderr):
            if not file.closed:
                file.flush()
    except OSError:
        code = 120  # sys.exit's own, where what was written can't be
    os._exit(code & 0xFF)


def _umask() -> int:
    """Without setting it, as os.umask does: other threads may make files meanwhile (proc_pid_status(5))."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (told,) = (line for line in lines if line.startswith("Umask:"))
    return int(told.split()[1], 8)


def _prctl(option: int, value: int | bytes) -> None:
    ctypes.CDLL(None).prctl(option, value)
