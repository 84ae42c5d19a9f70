"""The control groups of this process, of both versions (cgroups(7)), as seen from here."""

from pathlib import Path

_MEMBERSHIP, _MOUNTED = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def own_groups(controller: str) -> list[Path]:
    """This process's groups of a controller, and those above them; none where the kernel has no groups."""
    try:
        membership = _MEMBERSHIP.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return []
    return groups_in(membership, _MOUNTED, controller)


def groups_in(membership: str, mounted: Path, controller: str) -> list[Path]:
    """The same for any process.

    Args:
        membership: content of the process's ``/proc/PID/cgroup``.
        mounted: where groups are mounted; a container sees its own as the topmost.
    """
    groups = [mounted, mounted / controller]
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            tops = [mounted, mounted / "unified"]
        elif controller in controllers.split(","):
            tops = [mounted / controller]
        else:
            continue
        if ".." in Path(path).parts:  # a group that can't be seen from here
            continue
        for top in tops:
            group = top / path.lstrip("/")
            groups += [group, *(up for up in group.parents if up.is_relative_to(top))]
    return list(dict.fromkeys(groups))
