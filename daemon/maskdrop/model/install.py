"""Copying a network's file to where the daemon keeps its own, whole or not at all."""

import hashlib
import os
from pathlib import Path

from maskdrop.beneath import open_folder
from maskdrop.durable import rename_over, sync_folder, write_synced
from maskdrop.model.errors import WeightsError

SERVICE_STATE = Path("/var/lib/maskdrop")
"""The service's state folder (file-hierarchy(7)), used where root installs."""

_MODE = 0o644
_DIGEST = 12


def default_state_folder() -> Path:
    """systemd's STATE_DIRECTORY if set; else the service's folder for root, or the user's own (XDG)."""
    if named := os.environ.get("STATE_DIRECTORY"):
        return Path(named.split(":")[0])
    if os.geteuid() == 0:
        return SERVICE_STATE
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "maskdrop"


def install_file(source: Path, sha256: str, state: Path) -> Path:
    """Copy a network that was checked into ``STATE/weights``, with its digest in its name.

    Args:
        sha256: of the content that was checked; other content is not installed.

    Returns:
        The path to set as ``model.weights``.

    Raises:
        WeightsError: the folder can't be written, or the file changed since it was checked.
    """
    folder = state / "weights"
    target = folder / f"{source.stem}-{sha256[:_DIGEST]}{source.suffix}"
    try:
        content = source.read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise WeightsError(f"{source}: changed while it was checked; try again")
        folder.mkdir(parents=True, exist_ok=True)
        temporary = f".{target.name}.{os.getpid()}.tmp"
        with open_folder(folder.resolve()) as descriptor:
            write_synced(descriptor, temporary, content, _MODE)
            rename_over(descriptor, temporary, target.name)
            sync_folder(descriptor)
    except OSError as error:
        problem = f"can't be installed in {folder} ({error.strerror})"
        raise WeightsError(f"{source}: {problem}; name another folder with --state") from error
    return target
