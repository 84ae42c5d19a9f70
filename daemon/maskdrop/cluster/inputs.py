"""What a cluster's batch is about: a folder, a list file, a glob, or the same in object storage."""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from maskdrop.cluster.object_store import SCHEME, Access, ObjectStore, told
from maskdrop.cluster.stores import FolderStore, Store
from maskdrop.config import FolderSettings
from maskdrop.config_file import fault
from maskdrop.inbox.scan import Seen, is_candidate, scan

_WILD = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Input:
    """A file that is to be a picture: its path below IN, and its size in bytes, -1 where that isn't known."""

    path: str
    size: int


class Inputs:
    """All files that are meant; gone through once.

    Attributes:
        store: from which they are read.
        base: the folder, or ``bucket/prefix``, below which all lie; None where they may lie anywhere.
        left_alone, unread: as of `maskdrop.inbox.listing.Listing`.
    """

    def __init__(
        self, store: Store, base: Path | str | None, entries: Callable[["Inputs"], Iterator[Input]]
    ) -> None:
        self.store, self.base = store, base
        self._entries = entries
        self.left_alone = self.unread = 0

    def __iter__(self) -> Iterator[Input]:
        return self._entries(self)


def find_inputs(named: str, access: Access, settings: FolderSettings) -> Inputs:
    """What IN means.

    Raises:
        ConfigurationError: it names nothing that can be read.
    """
    if named.startswith(SCHEME):
        return _in_object_storage(named, access)
    path = Path(named).absolute()
    if path.is_dir():
        return _in_folder(path, settings, _all)
    if path.is_file():
        return _in_list(path, access, settings)
    if _WILD.search(named):
        base, matches = _split_glob(str(path))
        return _in_folder(Path(base), settings, matches)
    remedy = f"name a folder, a list file, a glob (in quotes) or {SCHEME}BUCKET/PREFIX"
    raise fault("IN", path, "no such file or folder", remedy)


Matches = Callable[[str], bool]


def _all(path: str) -> bool:
    return True


def _in_folder(base: Path, settings: FolderSettings, matches: Matches) -> Inputs:
    try:
        next(os.scandir(base), None)
    except OSError as error:
        raise fault("IN", base, error.strerror or str(error), "name a folder that you may read") from error
    base = base.resolve()

    def entries(inputs: Inputs) -> Iterator[Input]:
        def note(folder: str, error: OSError) -> None:
            inputs.unread += 1

        for seen in scan(base, recursive=True, one_device=False, unread=note):
            if not matches(seen.path):
                continue
            if isinstance(seen, Seen):
                yield Input(seen.path, seen.identity.size)
            else:
                inputs.left_alone += 1

    return Inputs(FolderStore(base, settings), base, entries)


def _in_list(file: Path, access: Access, settings: FolderSettings) -> Inputs:
    """Lines that are all absolute, or all relative to the list's folder, or all in object storage."""
    lines = [os.fsdecode(line.rstrip(b"\r")) for line in file.read_bytes().split(b"\n")]
    lines = [line for line in lines if line]
    kinds = {_kind(line) for line in lines}
    if len(kinds) > 1:
        problem = f"has {' and '.join(sorted(kinds))} lines"
        raise fault("IN", file, problem, "write all of them one way, so that names of results last")
    for line in lines:
        if ".." in PurePosixPath(line).parts:
            raise fault("IN", file, f"line {line!r} leads upwards", "write it without ..")
    kind = kinds.pop() if kinds else "relative"
    if kind == SCHEME:
        names = [line.removeprefix(SCHEME) for line in lines]
        return Inputs(ObjectStore("", access), None, lambda _: _unsized(names))
    base = Path("/") if kind == "absolute" else file.parent.resolve()
    return Inputs(FolderStore(base, settings), None, lambda _: _unsized(lines))


def _kind(line: str) -> str:
    return SCHEME if line.startswith(SCHEME) else "absolute" if line.startswith("/") else "relative"


def _unsized(lines: list[str]) -> Iterator[Input]:
    """Each once, in the order of the list."""
    for name in dict.fromkeys(str(PurePosixPath(line)).lstrip("/") for line in lines):
        yield Input(name, -1)


def _in_object_storage(named: str, access: Access) -> Inputs:
    matches: Matches
    whole = named.removeprefix(SCHEME).strip("/")
    base, matches = _split_glob(whole) if _WILD.search(whole) else (whole, _all)
    store = ObjectStore(base, access)
    if not base:
        raise fault("IN", named, "names no bucket", f"write {SCHEME}BUCKET/PREFIX")
    if problem := store.check(writes=False):
        raise fault("IN", named, *problem)

    def entries(inputs: Inputs) -> Iterator[Input]:
        try:
            for path, size in store.entries():
                if is_candidate(path, recursive=True) and matches(path):
                    yield Input(path, size)
        except OSError as error:
            raise fault("IN", named, told(error), "give keys that may list it") from error

    return Inputs(store, base, entries)


def _split_glob(pattern: str) -> tuple[str, Matches]:
    """A glob's fixed folder, and whether a path below that is meant. ``**`` is any number of folders."""
    parts = pattern.split("/")
    wild = next(index for index, part in enumerate(parts) if _WILD.search(part))
    expression = ""
    for index, part in enumerate(parts[wild:], start=wild):
        is_last = index == len(parts) - 1
        if part == "**":
            expression += ".*" if is_last else "(?:[^/]+/)*"
        else:
            expression += _one_name(part) + ("" if is_last else "/")
    compiled = re.compile(expression, re.DOTALL)
    return "/".join(parts[:wild]) or "/", lambda path: compiled.fullmatch(path) is not None


def _one_name(part: str) -> str:
    """A glob of one name as an expression; wildcards never stand for a slash."""
    known = {"*": "[^/]*", "?": "[^/]"}
    expression = ""
    for piece in re.split(r"(\[[^\]]+\]|\*|\?)", part):
        if piece.startswith("[") and piece.endswith("]"):
            expression += piece.replace("[!", "[^/", 1)
        else:
            expression += known.get(piece) or re.escape(piece)
    return expression
