"""Somebody who does what a page says: command by command, in a scratch folder, as in a terminal."""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from documented import CTRL_C, ROOT, Command, shows
from running import Daemon
from terminal import TOP, Terminal
from waiting import PATIENCE_S, wait_for

LINKED = ("bench", "docs", "etc", "tests", "tools")
"""Folders of the repository that stand beside the reader's own."""

OPTIONAL = {"jq": "apt-get install jq", "promtool": "apt-get install prometheus"}
"""Programs that a page may use where they are installed."""

LOOKING = ("ls", "cat", "grep", "maskdrop status")
"""Commands that can be repeated until they show what the page does: in between the daemon works."""

FAILING = re.compile(r"^maskdrop (check|doctor)\b")
"""Commands that end with 1 for what they find, which is what the page says."""


@dataclass
class Reader:
    """One page's reader.

    Attributes:
        home: the scratch folder, where everything happens.
        patience_s: how long what a page shows may take to come true.
        missing: optional programs that were wanted and are not installed, and how to get them.
        beside: daemons that a page presupposes; they end with it.
    """

    home: Path
    patience_s: float = PATIENCE_S
    missing: set[str] = field(default_factory=set)
    beside: list[Daemon] = field(default_factory=list)
    _running: "list[tuple[subprocess.Popen[str], Path]]" = field(default_factory=list)

    def __post_init__(self) -> None:
        if len(str(self.home).split()) != 1:
            pytest.skip("pages quote no folders: have TMPDIR where there are no blanks")
        for name in LINKED:
            (self.home / name).symlink_to(ROOT / name)
        (self.home / ".venv").symlink_to(sys.prefix)
        programs = self.home / "bin"
        programs.mkdir()
        for name, command in {"maskdrop": "-m maskdrop ", "python": ""}.items():
            (programs / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {command}"$@"\n')
            (programs / name).chmod(0o755)
        for folder in ("etc-maskdrop", "state/inbox", "run"):
            (self.home / folder).mkdir(parents=True)

    def translated(self, text: str) -> str:
        """The command with the machine's folders replaced by ones in the scratch folder."""
        for machine, here in (
            ("sudo -u maskdrop ", ""),
            ("/etc/maskdrop.toml", str(self.home / "etc-maskdrop" / "maskdrop.toml")),
            ("/var/lib/maskdrop", str(self.home / "state")),
            ("/run/maskdrop/", f"{self.home}/run/"),
        ):
            text = text.replace(machine, here)
        return text

    @property
    def environment(self) -> dict[str, str]:
        own = {
            "HOME": str(self.home),
            "PATH": f"{self.home / 'bin'}:{os.environ['PATH']}",
            "STATE_DIRECTORY": str(self.home / "state"),
            "LC_ALL": "C.UTF-8",
            "COLUMNS": "200",
        }
        return {**os.environ, **own}

    def do(self, command: Command) -> None:
        """One command of the page.

        Raises:
            AssertionError: it doesn't do what the page says.
        """
        text = self.translated(command.text)
        program = text.split()[0]
        if text == CTRL_C:
            self.press_ctrl_c()
        elif program in OPTIONAL and shutil.which(program) is None:
            self.missing.add(f"{program}: {OPTIONAL[program]}")
        elif re.match(r"(\S*/)?maskdrop run ", text):
            self._begin(command, text)
        elif re.match(r"maskdrop top --health \S+$", text):
            self._watch(command, text)
        elif program == "make":
            self._judge(command, self._run(f"make --dry-run {text.removeprefix('make')}", ROOT))
        elif command.shown:
            self._see(command, text)
        else:
            self._judge(command, self._run(text, self.home))

    def press_ctrl_c(self) -> None:
        """In the terminal where something was left running: all of its processes get the signal."""
        for process, log in self._running:
            os.killpg(process.pid, signal.SIGINT)
            code = process.wait(PATIENCE_S)
            assert code == 0, f"ended with {code} on Ctrl-C:\n{log.read_text()}"
        self._running.clear()

    def close(self) -> None:
        for process, _ in self._running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        for daemon in self.beside:
            daemon.destroy()

    def _run(self, text: str, folder: Path) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["bash", "-c", f"set -o pipefail; {text}"],
            cwd=folder,
            env=self.environment,
            input="y\n",
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )

    def _judge(self, command: Command, done: "subprocess.CompletedProcess[str]") -> None:
        expected = (0, 1) if FAILING.match(self.translated(command.text)) else (0,)
        said = done.stdout + done.stderr
        assert done.returncode in expected, f"{command}\nended with {done.returncode}:\n{said}"
        assert "Traceback" not in said, f"{command}\n{said}"

    def _see(self, command: Command, text: str) -> None:
        """What is shown is what counts, not the exit code."""
        assert text.startswith(LOOKING), (
            f"{command}\nonly looking can be shown; put others into a block of sh"
        )
        assert command.shown is not None
        shown, output = command.shown, ""

        def seen() -> bool:
            nonlocal output
            output = self._run(text, self.home).stdout
            return shows(shown, output)

        try:
            wait_for(seen, "what the page shows", self.patience_s)
        except AssertionError as error:
            wanted = "\n".join(shown)
            raise AssertionError(f"{command}\n{error}:\n{wanted}\nbut it is:\n{output}") from None

    def _begin(self, command: Command, text: str) -> None:
        """Leave a daemon running, as in a terminal of its own, once it is ready."""
        words = shlex.split(text.replace("~", str(self.home)))
        inbox = self.home / words[words.index("--inbox") + 1]
        log = self.home / "daemon.log"
        with log.open("w") as file:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {text}"],
                cwd=self.home,
                env=self.environment,
                stdout=file,
                stderr=file,
                text=True,
                start_new_session=True,
            )
        self._running.append((process, log))

        def ready() -> bool:
            assert process.poll() is None, f"{command}\nended with {process.returncode}:\n{log.read_text()}"
            health = inbox.parent / "health.json"
            return health.exists() and json.loads(health.read_bytes())["state"] == "running"

        wait_for(ready, f"{command} to be ready")

    def _watch(self, command: Command, text: str) -> None:
        """In a terminal, left by its key."""
        terminal = Terminal([*TOP, str(self.home / shlex.split(text)[-1].removeprefix("~/"))], 100, 30)
        try:
            terminal.wait("running")
            terminal.type(b"q")
            assert terminal.wait_end() == 0, f"{command}\n{terminal.text}"
        finally:
            terminal.close()
