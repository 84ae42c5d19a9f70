"""Two real daemons on two hosts, each with an inbox on the same NFS disk, and a dispatcher between them."""

import json
import subprocess
import sys
import time
from pathlib import Path

from nfs.hosts import NFS, UNLENT, Host

OUT = Path("/run/out")
SETTINGS = """
[watch]
polling = true
settle_ms = 200
rescan_s = 1
[model]
device = "cpu"
[workers]
preprocess = 1
save = 1
inference_threads = 1
[face]
locate = "off"
[health]
interval_s = 0.5
"""
PICTURES = 8
PATIENCE_S = 500.0
"""A page fault costs this machine many times what it costs a real one, and importing PyTorch is full of
them."""


def daemon(host: Host, disk: Path, room: str, name: str) -> "subprocess.Popen[str]":
    """A daemon on a host, on a room of the disk as that host sees it; its log goes out."""
    config = Path(f"/run/{name}.toml")
    config.write_text(SETTINGS)
    command = [sys.executable, "-m", "maskdrop", "run", "--config", str(config)]
    command += ["--weights", str(OUT / "tiny.safetensors"), "--health", f"/run/{name}-health/health.json"]
    command += ["--inbox", str(disk / room / "inbox"), "--outbox", str(disk / "outbox")]
    return host.start(*command, stderr=(OUT / f"{name}.log").open("w"))


def wait_for(condition: str, probe: object, *processes: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + PATIENCE_S
    assert callable(probe)
    while not probe():
        assert time.monotonic() < deadline, f"waited in vain for {condition}"
        for process in processes:
            assert process.poll() is None, f"a daemon ended with {process.returncode}"
        time.sleep(0.2)


def state(name: str) -> str:
    try:
        return str(json.loads(Path(f"/run/{name}-health/health.json").read_bytes())["state"])
    except (OSError, ValueError):
        return "none"


def main() -> None:
    a, b = Host("host-a", 1), Host("host-b", 2)
    disk = Path("/run/export")
    for folder in ("arriving", "a/inbox", "b/inbox", "outbox"):
        (disk / folder).mkdir(parents=True)
    daemons = daemon(a, NFS, "a", "a"), daemon(b, UNLENT, "b", "b")
    wait_for("both ready", lambda: state("a") == state("b") == "running", *daemons)
    facts: dict[str, object] = {}
    for path in sorted((OUT / "pictures").iterdir()):
        (disk / "arriving" / path.name).write_bytes(path.read_bytes())
    tool = str(Path(__file__).parent.parent.parent / "tools" / "dispatch.py")
    rooms = [str(NFS / room / "inbox") for room in ("a", "b")]
    command = (sys.executable, tool, str(NFS / "arriving"), *rooms, "--most", "2", "--settle", "0.2")
    dispatcher = a.start(*command, "--every", "0.2")

    def done() -> bool:
        return len(list(disk.glob("[ab]/archive/*"))) == PICTURES

    wait_for("all done", done, *daemons, dispatcher)
    for process in (dispatcher, *daemons):
        process.terminate()
    facts["exit codes"] = [process.wait(PATIENCE_S) for process in (dispatcher, *daemons)]
    facts["archived"] = {room: sorted(p.name for p in (disk / room / "archive").iterdir()) for room in "ab"}
    facts["results"] = sorted(path.name for path in (disk / "outbox").iterdir() if path.suffix == ".jpg")
    facts["left"] = sorted(
        str(path.relative_to(disk))
        for folder in ("arriving", "a/inbox", "b/inbox", "a/quarantine", "b/quarantine")
        for path in (disk / folder).rglob("*")
        if path.is_file() and not path.name.endswith(".lock")
    )
    (OUT / "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main()
