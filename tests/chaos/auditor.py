"""Proves the promise file by file, from hashes taken before. Shares no code with the daemon.

Every original is at exactly one place: in the inbox; or in the archive, with every result
on disk; or in quarantine, with its reason. Every result is whole and says which original it
was made from. Nothing else lies about.
"""

import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

from PIL import Image

DOCUMENT_NAME = 0x010D
REASON = ".reason.json"
CLAIMED = ".maskdrop.claimed/"


@dataclass(frozen=True)
class Entry:
    """One original: its path relative to the inbox, its SHA-256, whether it is a whole picture."""

    path: str
    sha256: str
    good: bool


@dataclass(frozen=True)
class Places:
    """The four folders, and what results' names end with, one for each configured output."""

    inbox: Path
    outbox: Path
    archive: Path
    quarantine: Path
    tails: tuple[str, ...]


@dataclass(frozen=True)
class Findings:
    """What an audit saw, and everything that breaks the promise, a line each."""

    inbox: int
    archived: int
    quarantined: int
    results: int
    faults: tuple[str, ...]


class Auditor:
    """Audits the same folders again and again; what it read once and is unchanged it doesn't read again."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._manifest: list[Entry] = []
        self._hashes: dict[tuple[int, ...], str] = {}
        self._sources: dict[tuple[int, ...], str] = {}

    def expect(self, entry: Entry) -> None:
        """An original that is about to be dropped."""
        self._manifest.append(entry)

    def audit(self, *, calm: bool, underway: frozenset[str] = frozenset()) -> Findings:
        """Look at everything now; no daemon may be running, or it must be idle.

        Args:
            calm: all work is done, so that also the inbox must be empty, good pictures
                archived and broken ones quarantined, and no temporary file left.
            underway: hashes of expected originals that need not have arrived in the inbox yet.
        """
        faults: list[str] = []
        where = {room: self._originals(room, faults) for room in ("inbox", "archive", "quarantine")}
        self._check_originals(where, underway, faults)
        results = self._results(faults)
        self._check_results(where["archive"], where["inbox"], results, faults)
        self._check_reasons(where["quarantine"], where["inbox"], faults)
        if calm:
            self._check_calm(where, faults)
        count = {room: sum(map(len, found.values())) for room, found in where.items()}
        archived, quarantined = count["archive"], count["quarantine"]
        return Findings(count["inbox"], archived, quarantined, len(results), tuple(faults))

    def _files(self, room: Path) -> Iterator[Path]:
        for folder, _, names in os.walk(room):
            for name in names:
                yield Path(folder) / name

    def _originals(self, room: str, faults: list[str]) -> dict[str, list[str]]:
        """Relative paths of a room's originals by the hash of their content."""
        base: Path = getattr(self._places, room)
        found: dict[str, list[str]] = defaultdict(list)
        for path in self._files(base):
            if path.name.startswith(".") or (room == "quarantine" and path.name.endswith(REASON)):
                continue
            # What is claimed is in the inbox, in a hidden folder, below its own path.
            found[self._hash(path)].append(str(path.relative_to(base)).removeprefix(CLAIMED))
        return found

    def _check_originals(
        self, where: dict[str, dict[str, list[str]]], underway: frozenset[str], faults: list[str]
    ) -> None:
        wanted = Counter(entry.sha256 for entry in self._manifest)
        names = defaultdict(list)
        for entry in self._manifest:
            names[entry.sha256].append(entry.path)
        seen = Counter({sha: len(p) for sha, p in where["inbox"].items()})
        for room in ("archive", "quarantine"):
            seen.update({sha: len(paths) for sha, paths in where[room].items()})
        for sha, count in wanted.items():
            least = 0 if sha in underway else count
            if not least <= seen[sha] <= count:
                places = {room: found[sha] for room, found in where.items() if sha in found}
                faults.append(f"{names[sha]!r} is at {seen[sha]} places, not {count}: {places!r}")
        for room, found in where.items():
            faults.extend(f"{room}: unknown content at {found[sha]!r}" for sha in found if sha not in wanted)

    def _results(self, faults: list[str]) -> dict[str, tuple[str, int]]:
        """Relative path of each result: the hash of the original it names, and its inode."""
        results = {}
        for path in self._files(self._places.outbox):
            name = str(path.relative_to(self._places.outbox))
            if path.name.startswith("."):
                continue
            try:
                results[name] = (self._source(path), path.stat().st_ino)
            except Exception as error:
                faults.append(f"outbox: {name!r} is not whole: {error!r}")
        return results

    def _check_results(
        self,
        archived: dict[str, list[str]],
        inbox: dict[str, list[str]],
        results: dict[str, tuple[str, int]],
        faults: list[str],
    ) -> None:
        of: dict[str, list[str]] = defaultdict(list)
        for name, (sha, _) in results.items():
            of[sha].append(name)
        for sha, originals in archived.items():
            for original in originals:
                place = PurePath(original)
                for tail in self._places.tails:
                    mine = [
                        name
                        for name in of[sha]
                        if PurePath(name).parent == place.parent and self._tail_of(name) == tail
                    ]
                    if len(mine) != 1:
                        faults.append(f"archived {original!r} has {len(mine)} results {tail!r}: {mine!r}")
            if len(of[sha]) != len(originals) * len(self._places.tails):
                faults.append(f"archived {originals!r} has results {of[sha]!r}")
        faults.extend(
            f"outbox: {names!r} of an original that is neither archived nor in the inbox"
            for sha, names in of.items()
            if sha not in archived and sha not in inbox
        )

    def _tail_of(self, name: str) -> str:
        """The longest configured tail with which a name ends."""
        return max((tail for tail in self._places.tails if name.endswith(tail)), key=len, default="")

    def _check_reasons(
        self, quarantined: dict[str, list[str]], inbox: dict[str, list[str]], faults: list[str]
    ) -> None:
        base = self._places.quarantine
        pictures = {path for paths in quarantined.values() for path in paths}
        waiting = {path for paths in inbox.values() for path in paths}
        notes = set()
        for path in self._files(base):
            if path.name.startswith(".") or not path.name.endswith(REASON):
                continue
            name = str(path.relative_to(base)).removesuffix(REASON)
            notes.add(name)
            try:
                reason = json.loads(path.read_bytes())
                assert reason["error"]
                assert reason["message"]
                assert reason["stage"]
            except Exception as error:
                faults.append(f"quarantine: the reason of {name!r} can't be read: {error!r}")
            if name not in pictures and name not in waiting:
                faults.append(f"quarantine: a reason without its picture: {name!r}")
        faults.extend(f"quarantine: {name!r} has no reason" for name in pictures - notes)

    def _check_calm(self, where: dict[str, dict[str, list[str]]], faults: list[str]) -> None:
        for paths in where["inbox"].values():
            faults.append(f"still in the inbox: {paths!r}")
        for entry in self._manifest:
            room = "archive" if entry.good else "quarantine"
            if entry.sha256 not in where[room]:
                faults.append(f"{entry.path!r} should be in {room}")
        places = self._places
        for base in (places.outbox, places.archive, places.quarantine, places.inbox):
            for path in self._files(base):
                if path.name.startswith(".") and path != places.inbox / ".maskdrop.lock":
                    faults.append(f"left over: {path!r}")
        notes = [path for path in self._files(places.quarantine) if path.name.endswith(REASON)]
        if len(notes) != sum(map(len, where["quarantine"].values())):
            faults.append(f"quarantine: {len(notes)} reasons")

    def _hash(self, path: Path) -> str:
        key = _state(path)
        if key not in self._hashes:
            self._hashes[key] = hashlib.sha256(path.read_bytes()).hexdigest()
        return self._hashes[key]

    def _source(self, path: Path) -> str:
        """Decode a result in full; the hash of the original it names."""
        key = _state(path)
        if key not in self._sources and path.suffix == ".json":
            told = json.loads(path.read_bytes())
            assert told["classes"]
            self._sources[key] = str(told["sha256"])
        if key not in self._sources:
            with Image.open(path) as image:
                image.load()
                name = str(image.getexif()[DOCUMENT_NAME])
            assert name.startswith("sha256:"), name
            self._sources[key] = name.removeprefix("sha256:")
        return self._sources[key]


def _state(path: Path) -> tuple[int, ...]:
    """Which file, and which state of it: the kernel changes ctime with any write or rename."""
    status = path.lstat()
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
