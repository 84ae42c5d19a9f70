"""A program in a terminal of its own."""

import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Sequence
from threading import Thread

import pyte

from waiting import PATIENCE_S, wait_for

MASKDROP = (sys.executable, "-m", "maskdrop")
TOP = (*MASKDROP, "top", "--health")


class Terminal:
    """The program, its keys, and what is to be read on the screen."""

    def __init__(self, command: Sequence[str], columns: int, lines: int) -> None:
        self._outer, self.inner = pty.openpty()
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        self.written = b""
        self.resize(columns, lines)
        self.modes = termios.tcgetattr(self.inner)
        self.process = subprocess.Popen(
            command,
            stdin=self.inner,
            stdout=self.inner,
            stderr=self.inner,
            env={**os.environ, "TERM": "xterm-256color"},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        self._reader = Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # EIO: nobody has the other end any more
            while data := os.read(self._outer, 65_536):
                self.written += data
                self._stream.feed(data)

    def resize(self, columns: int, lines: int) -> None:
        self.screen.resize(lines, columns)
        fcntl.ioctl(self.inner, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self._outer, keys)

    @property
    def text(self) -> str:
        return "\n".join(self.screen.display)

    def wait(self, *parts: str) -> None:
        """Wait until the screen shows all of these."""
        try:
            wait_for(lambda: all(self._shows(part) for part in parts), f"{parts} on the screen")
        except AssertionError as error:
            raise AssertionError(f"{error}:\n{self.text}") from None

    def _shows(self, part: str) -> bool:
        """Also where it goes on in the next line, behind a path as long as this machine's folders have it."""
        return part in self.text or part in " ".join(self.text.split())

    def wait_end(self) -> int:
        return self.process.wait(PATIENCE_S)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.inner)
        self._reader.join()
        os.close(self._outer)
