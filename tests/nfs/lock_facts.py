"""What the inbox's lock, renames, leases and events do over NFS, found out by trying with two hosts."""

import json
import time
from pathlib import Path

from nfs.hosts import LOCAL_LOCKS, NFS, SQUASHED, UNLENT, Host, ask

HOLD = """
import sys
from pathlib import Path
from maskdrop.inbox.lock import InboxHeld, InboxLock
try:
    lock = InboxLock.take(Path(sys.argv[1]))
except InboxHeld as held:
    print(held)
    sys.exit()
print("held", flush=True)
for line in sys.stdin:
    if line.strip() == "release":
        lock.release()
        print("released", flush=True)
    else:
        try:
            lock.follow(Path(sys.argv[1]))
            print("still held", flush=True)
        except InboxHeld as held:
            print(held, flush=True)
"""

RENAME = """
import os, sys
from pathlib import Path
from maskdrop.beneath import open_folder
from maskdrop.durable import has_rename_new, rename_new, sync_folder, write_synced
with open_folder(Path(sys.argv[1])) as folder:
    had = has_rename_new(folder, ".probe")
    for name in ("one", "two"):
        write_synced(folder, name, name.encode(), 0o644)
    try:
        rename_new(folder, "one", folder, "two")
    except FileExistsError:
        rename_new(folder, "one", folder, "three")
    sync_folder(folder)
    print(had, *sorted(name for name in os.listdir(folder) if name in ("one", "two", "three")))
    for name in ("two", "three"):
        os.unlink(name, dir_fd=folder)
"""

LEASE = """
import fcntl, os, sys
from pathlib import Path
from maskdrop.inbox.writers import writers_at
descriptor = os.open(Path(sys.argv[1]) / sys.argv[2], os.O_RDONLY)
try:
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    said = "granted"
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
except OSError as error:
    said = error.strerror
os.close(descriptor)
print(said, writers_at(os.open(sys.argv[1], os.O_RDONLY), sys.argv[2]).value, sep=" / ")
"""

EVENTS = """
import sys, threading
from pathlib import Path
from maskdrop.inbox.watch import Watch
told = threading.Event()
watch = Watch(Path(sys.argv[1]), False, True, 1.0, told.set)
watch.start()
print("watching", flush=True)
names = []
for line in sys.stdin:
    (Path(sys.argv[1]) / line.strip()).touch()
    while line.strip() not in names:
        told.wait()
        names += [event.path for event in watch.take()[0]]
    print(*dict.fromkeys(names), flush=True)
watch.stop()
"""

SILLY = """
import os, sys
from pathlib import Path
from maskdrop.inbox.scan import scan
inbox = Path(sys.argv[1])
(inbox / "open.jpg").write_bytes(b"x")
with open(inbox / "open.jpg", "rb"):
    (inbox / "open.jpg").unlink()
    left = sorted(name for name in os.listdir(inbox) if not name.startswith(".maskdrop"))
    print(len(left), left[0][:4], len(list(scan(inbox, True))))
"""

SIZES = """
import os, sys
print(os.lstat(sys.argv[1]).st_size, flush=True)
for line in sys.stdin:
    before = os.lstat(sys.argv[1]).st_size
    descriptor = os.open(sys.argv[1], os.O_RDONLY)
    print(before, os.fstat(descriptor).st_size, flush=True)
    os.close(descriptor)
"""

SQUASH = """
import sys
from pathlib import Path
from maskdrop.config_file import ConfigurationError
from maskdrop.folders import check_writable
try:
    check_writable("folders.inbox", Path(sys.argv[1]))
    print("written")
except ConfigurationError as error:
    print(error)
"""

DOCTOR = """
import json, sys
from pathlib import Path
from maskdrop.config_file import load_settings
from maskdrop.doctor.network import check_network
folders = {name: Path(sys.argv[1]) / name for name in ("inbox", "outbox")}
settings = load_settings(None, {"folders": folders})
print(json.dumps([[f.name, f.status, f.told, f.remedy] for f in check_network(settings, folders)]))
"""


def locks(a: Host, b: Host, inbox: str) -> dict[str, object]:
    first = a.talk(HOLD, inbox)
    facts: dict[str, object] = {"a takes": ask(first), "b meanwhile": ask(b.talk(HOLD, inbox))}
    first.kill()
    first.wait()
    second = b.talk(HOLD, inbox)
    facts["b after a's death"] = ask(second)
    facts["b lets go"] = ask(second, "release")
    third = a.talk(HOLD, inbox)
    facts["a again"] = ask(third)
    a.cut_off(True)
    began = time.monotonic()
    while (answer := ask(fourth := b.talk(HOLD, inbox))) != "held":
        facts["b while a is newly cut off"] = answer
        if time.monotonic() - began > 60:
            break
        time.sleep(1)
    facts["b while a is cut off"] = answer
    a.cut_off(False)
    facts["a back on the network"] = ask(third, "look")
    ask(fourth, "release")
    facts["a when b has let go"] = ask(third, "look")
    facts["b after that"] = ask(b.talk(HOLD, inbox))
    third.kill()
    return facts


def main() -> None:
    a, b = Host("host-a", 1), Host("host-b", 2)
    inbox = NFS / "inbox"
    a.run("mkdir", "-p", str(inbox), str(NFS / "alone"))
    facts = locks(a, b, str(inbox))
    alone = str(LOCAL_LOCKS / "alone")
    holders = [host.talk(HOLD, alone) for host in (a, b)]
    facts["local locks"] = [ask(holder) for holder in holders]
    facts["rename"] = a.python(RENAME, str(inbox))
    b.run("sh", "-c", f"echo picture > {inbox}/closed.jpg")
    facts["lease where the server lends files"] = a.python(LEASE, str(inbox), "closed.jpg")
    facts["lease where it lends none"] = a.python(LEASE, str(UNLENT / "inbox"), "closed.jpg")
    watcher = a.talk(EVENTS, str(inbox))
    ask(watcher)
    b.run("touch", f"{inbox}/from-b.jpg")
    facts["events on a"] = ask(watcher, "from-a.jpg")
    a.run("sh", "-c", f"rm {inbox}/*.jpg")
    facts["removed while open"] = a.python(SILLY, str(inbox))
    b.run("sh", "-c", f"printf 12345 > {inbox}/grows")
    sizes = a.talk(SIZES, f"{inbox}/grows")
    ask(sizes)
    b.run("sh", "-c", f"printf 67890 >> {inbox}/grows")
    facts["sizes before and after opening"] = ask(sizes, "look")
    facts["root squashed"] = a.python(SQUASH, str(SQUASHED))
    facts["doctor"] = json.loads(a.python(DOCTOR, str(NFS)))
    facts["doctor, local locks"] = json.loads(a.python(DOCTOR, str(LOCAL_LOCKS)))
    Path("/run/out/facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main()
