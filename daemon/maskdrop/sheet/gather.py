"""What the sheet shows: the newest results, grouped by the picture they are of, and their originals."""

import hashlib
import heapq
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from maskdrop.beneath import open_folder
from maskdrop.config import EXTENSION, DecodeSettings, ImageOutput, SaveSettings
from maskdrop.decoding import BrokenPicture
from maskdrop.inbox.scan import Seen, Unread, look, scan
from maskdrop.leave_alone import LeaveAlone
from maskdrop.original import read_original
from maskdrop.replay import Kept, Room, Wanted, find
from maskdrop.results.provenance import source_of
from maskdrop.ticket import Ticket

IMAGE_OUTPUTS: tuple[ImageOutput, ...] = ("labels", "overlay", "face", "cutout", "model")
"""In the order in which they are shown."""

_FILES_A_PICTURE = 8
"""Newest images looked at for each picture: its five results, and some that others have put there."""


@dataclass
class Shown:
    """A picture and its results.

    Attributes:
        name: of the picture, relative to the outbox, without its extension.
        sha256: of the picture.
        modified_ns: when its latest result was written, in nanoseconds since 1970.
        results: paths relative to the outbox.
    """

    name: str
    sha256: str
    modified_ns: int
    results: dict[ImageOutput, str] = field(default_factory=dict)


def newest_pictures(outbox: Path, settings: SaveSettings, most: int, unread: Unread) -> list[Shown]:
    """The pictures with the newest results, the newest first.

    Args:
        outbox: absolute and without links.
        unread: called for each sub-folder that can't be read.

    Raises:
        OSError: the outbox can't be read.
    """
    files = (seen for seen in scan(outbox, recursive=True, unread=unread) if isinstance(seen, Seen))
    images = (seen for seen in files if PurePath(seen.path).suffix in EXTENSION.values())
    newest = heapq.nlargest(most * _FILES_A_PICTURE, images, key=lambda seen: seen.identity.mtime_ns)
    groups: dict[tuple[str, str], Shown] = {}
    for seen in newest:
        sha256 = source_of(outbox / seen.path)
        if sha256 is None:
            continue
        output, name = kind_of(seen.path, sha256, settings)
        key = (name, sha256)
        if key not in groups:
            if len(groups) == most:
                continue
            groups[key] = Shown(name, sha256, seen.identity.mtime_ns)
        groups[key].results.setdefault(output, seen.path)
    return list(groups.values())


def kind_of(path: str, sha256: str, settings: SaveSettings) -> tuple[ImageOutput, str]:
    """Which output a result is, judged by its name, and the name of its picture without the extension."""
    pure = PurePath(path)
    suffixes = {output: settings.suffix_of(output) for output in IMAGE_OUTPUTS}
    fitting = [output for output, suffix in suffixes.items() if pure.stem.endswith(suffix)]
    usual: ImageOutput = "face"
    output = max(fitting, key=lambda output: len(suffixes[output]), default=usual)
    stem = pure.stem.removesuffix(suffixes[output])
    stem = re.sub(rf"~{re.escape(sha256[:8])}(-\d+)?$", "", stem)
    return output, str(pure.with_name(stem)) if stem else str(pure)


class Originals:
    """Finds originals by name, and confirms them by content. Remembers one folder's names."""

    def __init__(self, folder: Path, settings: DecodeSettings) -> None:
        self._folder, self._settings = folder, settings
        self._parent: str | None = None
        self._by_stem: dict[str, list[str]] = {}

    def content_of(self, shown: Shown) -> bytes | None:
        """The content of the very file that the results were made from; None if it isn't there."""
        parent, stem = os.path.split(shown.name)
        if parent != self._parent:
            self._parent, self._by_stem = parent, self._names_in(parent)
        for name in self._by_stem.get(stem, []):
            path = f"{parent}/{name}" if parent else name
            seen = look(self._folder, path, one_device=False)
            if not isinstance(seen, Seen):
                continue
            try:
                ticket = Ticket(0, path, seen.identity)
                content = read_original(self._folder, ticket, self._settings.max_bytes)
            except (BrokenPicture, LeaveAlone):
                continue
            if hashlib.sha256(content).hexdigest() == shown.sha256:
                return content
        return None

    def _names_in(self, parent: str) -> dict[str, list[str]]:
        by_stem: dict[str, list[str]] = {}
        try:
            with open_folder(self._folder, parent) as folder:
                for name in os.listdir(folder):
                    stem = PurePath(name).stem
                    for wanted in {stem, re.sub(r"~\d+$", "", stem)}:
                        by_stem.setdefault(wanted, []).append(name)
        except OSError:
            return {}
        return by_stem


def newest_broken(quarantine: Path, most: int, unread: Unread) -> list[Kept]:
    """The pictures that came into quarantine last, the newest first.

    Args:
        unread: called for each sub-folder that can't be read.

    Raises:
        OSError: the quarantine can't be read.
    """
    kept: Iterator[Kept] = find(quarantine, Room.QUARANTINE, Wanted(), unread=unread)
    return heapq.nlargest(most, kept, key=lambda one: one.since)
