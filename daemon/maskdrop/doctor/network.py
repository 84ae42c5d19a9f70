"""Whether a folder lies on a file system that other machines use too, and what follows from that."""

from pathlib import Path

from maskdrop.beneath import is_folder
from maskdrop.config import Settings
from maskdrop.doctor.finding import Finding, ok, warning
from maskdrop.machine.mounts import Mount, mount_of

_DOC = "docs/several-daemons.md"


def check_network(settings: Settings, folders: dict[str, Path]) -> list[Finding]:
    """A finding for all folders together; where the inbox is on a network disk, one for its lock too."""
    mounts = {name: _mount(folder) for name, folder in folders.items()}
    remote = {name: mount for name, mount in mounts.items() if mount is not None and mount.is_remote}
    name = "network disks"
    if not remote:
        return [ok(name, "none of the folders is on one that is known as such")]
    told = "; ".join(f"{folder} is on {mount.type} ({mount.source})" for folder, mount in remote.items())
    if "inbox" not in remote:
        remedy = f"nothing, if the server keeps what it says is synced ({_DOC})"
        return [warning(name, told, remedy)]
    if settings.watch.polling:
        seen = "it is polled"
        remedy = "have writers rename their files into the inbox, and give each host an inbox of its own"
    else:
        seen = "what other machines put into the inbox makes no events"
        remedy = "watch.polling = true; have writers rename their files into the inbox; one inbox a host"
    return [warning(name, f"{told}: {seen}", f"{remedy} ({_DOC})"), _lock(remote["inbox"])]


def _lock(mount: Mount) -> Finding:
    name = "lock on a network disk"
    if not mount.locks_here_only:
        return ok(name, "other machines see it, if they mount the disk in the same way")
    why = sorted(mount.options & {"local_lock=flock", "local_lock=all", "nolock", "nobrl"}) or [mount.type]
    told = (
        f"it may hold on this machine alone ({why[0]}): a daemon on another machine could take the same inbox"
    )
    return warning(
        name, told, f"mount it without that option, and give each host an inbox of its own ({_DOC})"
    )


def _mount(folder: Path) -> Mount | None:
    there = next(place for place in (folder, *folder.parents) if is_folder(place))
    try:
        return mount_of(there)
    except OSError:
        return None
