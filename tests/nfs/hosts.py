"""Inside the machine: hosts, each with a name, a network and NFS mounts of its own."""

import subprocess
import sys
from pathlib import Path
from typing import Any

SERVER = "10.7.{number}.1"
NFS = Path("/run/nfs")
UNLENT = Path("/run/nfs-unlent")
"""The same disk, where the host wants no delegations (nfs(5), clientaddr), and so gets no leases."""
LOCAL_LOCKS = Path("/run/nfs-local")
"""The same disk by NFS 3, with locks that are kept by each host alone."""
SQUASHED = Path("/run/nfs-squashed")
"""A disk on which root is nobody."""


class Host:
    """Namespaces of network, name and mounts, which a sleeping process holds."""

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self._keeper = subprocess.Popen(["unshare", "--net", "--uts", "--mount", "sleep", "infinity"])
        while Path(f"/proc/{self._keeper.pid}/comm").read_text().strip() != "sleep":
            pass
        self._enter = ["nsenter", "--net", "--uts", "--mount", "-t", str(self._keeper.pid)]
        server = SERVER.format(number=number)
        pid = str(self._keeper.pid)
        _do("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", pid)
        _do("ip", "address", "add", f"{server}/24", "dev", name)
        _do("ip", "link", "set", name, "up")
        self.run("hostname", name)
        self.run("ip", "address", "add", f"10.7.{number}.2/24", "dev", "eth0")
        self.run("ip", "link", "set", "eth0", "up")
        for source, options, folder in (
            ("/", "vers=4.2", NFS),
            ("/", "vers=4.0,clientaddr=0.0.0.0", UNLENT),
            ("/squashed", "vers=4.2", SQUASHED),
            ("/run/export", "vers=3,nolock", LOCAL_LOCKS),
        ):
            self.run("mount", "-t", "nfs", "-o", f"nosharecache,{options}", f"{server}:{source}", str(folder))

    def run(self, *command: str) -> str:
        """What a command on this host says; it must succeed."""
        done = subprocess.run([*self._enter, *command], stdout=subprocess.PIPE, text=True, check=True)
        return done.stdout

    def start(self, *command: str, **options: Any) -> "subprocess.Popen[str]":
        return subprocess.Popen([*self._enter, *command], text=True, **options)

    def python(self, program: str, *arguments: str) -> str:
        return self.run(sys.executable, "-c", program, *arguments).strip()

    def talk(self, program: str, *arguments: str) -> "subprocess.Popen[str]":
        """A Python program that is spoken to by lines."""
        command = (sys.executable, "-c", program, *arguments)
        return self.start(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=1)

    def cut_off(self, is_off: bool) -> None:
        """Take the host off the network, or put it back."""
        self.run("ip", "link", "set", "eth0", "down" if is_off else "up")


def ask(process: "subprocess.Popen[str]", line: str = "") -> str:
    """Say a line to a program, if any is given, and hear one."""
    assert process.stdin is not None
    assert process.stdout is not None
    if line:
        process.stdin.write(f"{line}\n")
        process.stdin.flush()
    return process.stdout.readline().strip()


def _do(*command: str) -> None:
    subprocess.run(command, check=True)
