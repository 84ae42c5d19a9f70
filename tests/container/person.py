"""An ordinary user with a home, whom this machine doesn't know: containers without root are hers to run.

She lives in mount and process namespaces of her own, in which alone her name and her range of further
user numbers are written down. So nothing of this machine is changed, nobody else's containers are met, and
all that she starts ends with her.
"""

import contextlib
import os
import pwd
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

from booted.isolated import ISOLATED, finish
from waiting import PATIENCE_S, wait_for

NAME = "anna"
HOME = f"/home/{NAME}"

_FURTHER = "1000000:65536"
"""User numbers that her containers may have beside her own: subuid(5)."""

_MOVE_IN = f"""
set -e
number=$1 home=$2 rooms=$3
shift 3
mount -t tmpfs -o mode=0755 tmpfs "$rooms"
mkdir "$rooms/{NAME}"
mount --bind "$home" "$rooms/{NAME}"
while [ $# -gt 0 ]; do
    mkdir -p "$rooms/$1"
    mount --rbind "$2" "$rooms/$1"
    mount -o remount,bind,ro "$rooms/$1"
    shift 2
done
cp -a /etc "$rooms/.etc"
mount --bind "$rooms/.etc" /etc
echo "{NAME}:x:$number:$number::{HOME}:/bin/bash" >> /etc/passwd
echo "{NAME}:x:$number:" >> /etc/group
echo "{NAME}:{_FURTHER}" > /etc/subuid
echo "{NAME}:{_FURTHER}" > /etc/subgid
mount --rbind "$rooms" /home
for shared in /dev/shm /run /tmp; do mount -t tmpfs -o mode=1777 tmpfs $shared; done
install -d -m 0700 -o $number -g $number /run/user/$number
echo in
read -r _
"""
"""What is shared by name among all of a user's containers is hers too: locks in /dev/shm, sockets in /run."""


class CannotMoveIn(Exception):
    """There can be no such user here; the message says why."""


class Person:
    """The user.

    Attributes:
        home: her home, as seen from here.
        number: her user and group number.
    """

    def __init__(self, home: Path, number: int, first: int) -> None:
        self.home = home
        self.number = number
        self._enter = ["nsenter", "--target", str(first), "--mount", "--pid", "--"]

    def begin(self, folder: str, text: str) -> list[str]:
        """A command of this machine's that has her do a shell's command in a folder of hers."""
        who = [f"--reuid={self.number}", f"--regid={self.number}", "--clear-groups", "--inh-caps=-all"]
        knows = [f"HOME={HOME}", f"USER={NAME}", f"XDG_RUNTIME_DIR=/run/user/{self.number}"]
        knows += [f"PATH={os.environ['PATH']}", "LC_ALL=C.UTF-8", "BUILDAH_LAYERS=false"]
        shell = f'cd "$0" && {text}'
        return [*self._enter, "setpriv", *who, "env", "-i", *knows, "bash", "-c", shell, folder]

    def attempt(
        self, text: str, folder: str = HOME, seconds: float = PATIENCE_S
    ) -> subprocess.CompletedProcess[str]:
        """A shell's command that may fail, with what it said."""
        return finish(self.begin(folder, text), seconds)

    def run(self, text: str, folder: str = HOME, seconds: float = PATIENCE_S) -> str:
        """What a shell's command says; it must succeed.

        Raises:
            AssertionError: it failed, or took longer; the message has what it said.
        """
        done = self.attempt(text, folder, seconds)
        assert done.returncode == 0, f"{text} ended with {done.returncode}:\n{done.stdout[-8000:]}"
        return done.stdout

    def write(self, path: str, content: str | bytes) -> None:
        """Put a file of hers below her home, whole at once."""
        target = self.home / path
        for folder in reversed(target.relative_to(self.home).parents[:-1]):
            if not (self.home / folder).is_dir():
                (self.home / folder).mkdir()
                os.chown(self.home / folder, self.number, self.number)
        part = target.with_name(f".{target.name}.part")
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        os.chown(part, self.number, self.number)
        part.rename(target)


@contextlib.contextmanager
def living_in(folder: Path, shown: Mapping[str, Path]) -> Iterator[Person]:
    """The user, until the end.

    Args:
        folder: empty; for her home.
        shown: folders of this machine by the names below /home under which she sees them, read-only.

    Raises:
        CannotMoveIn: she can't be made.
    """
    known = {entry.pw_uid for entry in pwd.getpwall()}
    number = next(each for each in range(61_000, 65_000) if each not in known)
    home, rooms = folder / "home", folder / "rooms"
    home.mkdir()
    rooms.mkdir()
    os.chown(home, number, number)
    pairs = [str(part) for pair in shown.items() for part in pair]
    command = [*ISOLATED, "bash", "-c", _MOVE_IN, "bash", str(number), str(home), str(rooms), *pairs]
    said = folder / "said"
    with said.open("wb") as output:
        living = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=output)
    try:

        def in_or_gone() -> bool:
            return said.read_text().endswith("in\n") or living.poll() is not None

        wait_for(in_or_gone, "the user's home")
        if living.poll() is not None:
            raise CannotMoveIn(f"no user can be made here: {said.read_text().strip()}")
        (first,) = psutil.Process(living.pid).children()
        yield Person(home, number, first.pid)
    finally:
        living.kill()
        living.wait()
