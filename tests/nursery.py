"""A process that has everything imported, and forks the daemons, batches and checks that tests start.

Importing PyTorch takes a second of a processor, the other libraries a third of one, and maskdrop's own
modules a fifth in each of four processes, which the suite would pay for each of some hundred daemons. What
is forked from here has run nothing of maskdrop yet, whose modules hold constants alone: it gets arguments,
environment, mask and files of its own, and from there on does what ``python -m maskdrop`` does; its
workers come from its `cradle`. Tests of the start itself, of who imports what, and those that start it by
way of another program, execute it instead; with MASKDROP_EXEC=1 all do.

Run as a program, this is that process: it reads orders from the socket that is its standard
input, answers each with a process number, and tells when one ends.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import time
import weakref
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from PIL import Image

from cradle import MESSAGE_SIZE, Cradle, be_to_the_end, enter, linked

AT_START = ("PYTHONPATH", "LD_PRELOAD", "LD_LIBRARY_PATH")
"""Variables that only count when a program is executed."""


LIBRARIES = (
    "PIL.ImageCms",
    "PIL.ImageFont",
    "numpy.random",
    "pydantic.main",
    "rich.progress",
    "rich.table",
    "safetensors.torch",
    "torch.multiprocessing",
    "torch.nn.utils.fusion",
    "typer",
    "watchdog.observers.inotify",
    "zoneinfo",
)
"""What a daemon and its workers import. Not torchvision: maskdrop has a way of its own to that."""

PROGRAM = (
    "maskdrop.commands.app",
    "maskdrop.daemon",
    "maskdrop.preprocess",
    "maskdrop.infer",
    "maskdrop.save",
    "maskdrop.batch.run",
    "maskdrop.check.run",
)
"""What commands and workers begin with; the rest comes with it."""


@dataclass(frozen=True)
class Order:
    """A command to be run: arguments of ``python -m maskdrop``."""

    arguments: list[str]
    environment: dict[str, str]
    folder: str
    umask: int
    session: bool


class Born:
    """A process forked in the nursery; as much of subprocess.Popen as tests use."""

    def __init__(self, nursery: "Nursery", pid: int, said: IO[str] | None, told: IO[str] | None) -> None:
        self._nursery = nursery
        self._files = (said, told)
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self._nursery.take_in()
            self.returncode = self._nursery.ended.get(self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise subprocess.TimeoutExpired("maskdrop", timeout or 0)
            self._nursery.take_in(left)
        return code

    def communicate(self, timeout: float) -> tuple[str, str]:
        """What it has written to the files it was given, once it has ended."""
        self.wait(timeout)
        said, told = map(_content, self._files)
        return said, told

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _content(file: IO[str] | None) -> str:
    if file is None:
        return ""
    file.seek(0)
    with file:
        return file.read()


class Nursery:
    """The tests' end."""

    def __init__(self) -> None:
        self._ours, theirs = linked()
        self._process = subprocess.Popen([sys.executable, __file__], stdin=theirs.fileno())
        theirs.close()
        self.pid = self._process.pid
        self._born: list[int] = []
        self.ended: dict[int, int] = {}

    def start(
        self, order: Order, said: IO[Any] | int, told: IO[Any] | int, given: IO[Any] | int | None = None
    ) -> Born:
        """Start a process whose standard output and error go to files or descriptors; it reads what is given,
        or nothing."""
        with Path(os.devnull).open() as nothing:
            streams = [nothing if given is None else given, said, told]
            numbers = [file if isinstance(file, int) else file.fileno() for file in streams]
            socket.send_fds(self._ours, [json.dumps(asdict(order)).encode()], numbers)
        while not self._born:
            self.take_in(None)
        ours = [None if isinstance(file, int) or "b" in file.mode else file for file in (said, told)]
        return Born(self, self._born.pop(), *ours)

    def take_in(self, seconds: float | None = 0.0) -> None:
        """Take in what the nursery tells, waiting so long for something; None: until there is something."""
        self._ours.settimeout(seconds if seconds is None or seconds > 0 else 0.0)
        with contextlib.suppress(BlockingIOError, TimeoutError):
            told = self._ours.recv(MESSAGE_SIZE)
            if not told:
                raise RuntimeError("the nursery is gone")
            answer = json.loads(told)
            if "code" in answer:
                self.ended[answer["pid"]] = answer["code"]
            else:
                self._born.append(answer["pid"])

    def close(self) -> None:
        self._ours.close()
        self._process.wait()


def serve(link: socket.socket) -> None:
    """Fork what is ordered until the tests are gone."""
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the tests, and the socket with them
    while True:
        readable, _, _ = select.select([link.fileno(), wake], [], [])
        if wake in readable:
            os.read(wake, 4096)
            tell_ended(link)
        if link.fileno() in readable and not take_order(link, (wake, woken)):
            return


def tell_ended(link: socket.socket) -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            told = {"pid": pid, "code": os.waitstatus_to_exitcode(status)}
            link.send(json.dumps(told).encode())


def take_order(link: socket.socket, pipe: tuple[int, int]) -> bool:
    """Fork what the next order says; whether there was one."""
    message, files, _, _ = socket.recv_fds(link, MESSAGE_SIZE, 3)
    if not message:
        return False
    pid = os.fork()
    if pid == 0:
        for number, file in enumerate(files):
            os.dup2(file, number)
        for file in files:
            os.close(file)
        signal.set_wakeup_fd(-1)
        for end in pipe:
            os.close(end)
        link.close()
        become(Order(**json.loads(message)))
    for file in files:
        os.close(file)
    link.send(json.dumps({"pid": pid}).encode())
    return True


def become(order: Order) -> None:
    """Be ``python -m maskdrop`` with these arguments, as if it had been executed."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGCHLD, signal.SIGHUP):  # the tests themselves may have been begun by nohup
        signal.signal(number, signal.SIG_DFL)
    enter(order.environment, order.folder, order.umask)
    if order.session:
        os.setsid()
    Cradle().take_over()
    sys.argv = ["maskdrop", *order.arguments]
    sys.path[0] = order.folder  # in place of this file's
    be_to_the_end(lambda: runpy.run_module("maskdrop", run_name="__main__", alter_sys=True))


def main() -> None:
    for name in (*LIBRARIES, *PROGRAM):
        importlib.import_module(name)
    Image.init()  # imports Pillow's formats, as decoders and savers have it do
    for ended in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        ended.atexit = False  # PyTorch's own, which take a tenth of a second
    gc.freeze()  # so that what is forked neither copies nor looks through it
    serve(socket.socket(fileno=os.dup(0)))


def order_of(arguments: list[str], options: dict[str, Any]) -> Order | None:
    """The order for a daemon; None: it is to be executed."""
    environment = dict(options.get("env") or os.environ)
    is_plain = all(environment.get(name) == os.environ.get(name) for name in AT_START)
    others = set(options) - {"env", "umask", "start_new_session", "stdin"}
    if environment.get("MASKDROP_EXEC") or not is_plain or others:
        return None
    umask = options.get("umask")
    if umask is None:
        umask = os.umask(0o022)
        os.umask(umask)
    session = bool(options.get("start_new_session"))
    return Order(arguments, environment, str(os.getcwd()), umask, session)


if __name__ == "__main__":
    main()
