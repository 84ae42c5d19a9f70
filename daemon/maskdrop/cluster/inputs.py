"""The inputs of a cluster's batch: a folder, a list file, a glob, or the same in object storage."""

import codecs
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from maskdrop.cluster.access import Access
from maskdrop.cluster.globs import Glob, Matches, is_glob, split_glob
from maskdrop.cluster.handover import handed_over
from maskdrop.cluster.object_store import NOTHING_BELOW, ObjectStore, is_refusal, told
from maskdrop.cluster.schemes import FOREIGN_LINE_REMEDY, SCHEME, foreign_scheme
from maskdrop.cluster.stores import FolderStore, Store, require
from maskdrop.config import FolderSettings
from maskdrop.config_file import ConfigurationError, fault
from maskdrop.inbox.scan import Seen, is_candidate, scan
from maskdrop.names import printable

logger = logging.getLogger("maskdrop")


@dataclass(frozen=True)
class Input:
    """A file that should be a picture: its path below IN, and its size in bytes, -1 if that isn't known."""

    path: str
    size: int


class Inputs:
    """All files that IN names; to be iterated over once.

    Attributes:
        store: where they are read from.
        base: the folder, or ``bucket/prefix``, below which all lie; None where they may lie anywhere.
        is_meant: says for each first name below the prefix whether inputs may lie there; None: under any.
        left_alone, unread: as in `maskdrop.inbox.listing.Listing`.
        is_stopped: whether no more inputs are wanted.
    """

    def __init__(
        self,
        store: Store,
        base: Path | str | None,
        entries: Callable[["Inputs"], Iterator[Input]],
        is_meant: Matches | None = None,
    ) -> None:
        self.store, self.base, self.is_meant = store, base, is_meant
        self._entries = entries
        self.left_alone = self.unread = 0
        self.is_stopped = False

    def __iter__(self) -> Iterator[Input]:
        return self._entries(self)

    def stop(self) -> None:
        """Stop waiting for more inputs; a signal's handler may call this."""
        self.is_stopped = True


def find_inputs(named: str, access: Access, settings: FolderSettings) -> Inputs:
    """The inputs that IN names.

    Raises:
        ConfigurationError: it names nothing that can be read.
    """
    if named.startswith(SCHEME):
        access.check()
        return _in_object_storage(named, access)
    path = Path(named).absolute()
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except OSError as error:
        raise _unreadable(path, error) from error
    if is_folder:
        return _in_folder(path, settings, None)
    if is_file:
        return _in_list(path, access, settings)
    if is_glob(named):
        glob = split_glob(str(path))
        return _in_folder(Path(glob.base), settings, glob)
    remedy = f"name a folder, a list file, a glob (in quotes) or {SCHEME}BUCKET/PREFIX"
    raise fault("IN", path, "no such file or folder", remedy)


def _unreadable(path: Path, error: OSError) -> ConfigurationError:
    return fault("IN", path, error.strerror or str(error), "name a folder or a list file that you may read")


def _no_match(named: str) -> ConfigurationError:
    return fault("IN", named, "nothing matches it", "mend the glob; ** is any number of folders")


def _in_folder(base: Path, settings: FolderSettings, glob: Glob | None) -> Inputs:
    try:
        with os.scandir(base) as there:
            next(there, None)
    except OSError as error:
        raise _unreadable(base, error) from error
    base = base.resolve()

    def entries(inputs: Inputs) -> Iterator[Input]:
        def note(folder: str, error: OSError) -> None:
            inputs.unread += 1
            logger.error("%s can't be read: %s", printable(base / folder), error.strerror)

        found = False
        for seen in scan(base, recursive=True, one_device=False, unread=note):
            if glob is not None and not glob.matches(seen.path):
                continue
            found = True
            if isinstance(seen, Seen):
                yield Input(seen.path, seen.identity.size)
            else:
                inputs.left_alone += 1
        if glob is not None and not found:
            raise _no_match(glob.pattern)

    return Inputs(FolderStore(base, settings), base, entries)


def _in_list(file: Path, access: Access, settings: FolderSettings) -> Inputs:
    """The files in a list: all absolute, or all relative to the list's folder, or all in object storage."""
    try:
        content = file.read_bytes().removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        raise _unreadable(file, error) from error
    if b"\0" in content:  # UTF-16, or a picture
        raise fault("IN", file, "is no list of names", "save it as UTF-8 text, a path a line")
    lines = [os.fsdecode(line.rstrip(b"\r")) for line in content.split(b"\n")]
    lines = [line for line in lines if line]
    for line in lines:
        if scheme := foreign_scheme(line):
            problem = f"line {line!r}: nothing can be read by {scheme}"
            raise fault("IN", file, problem, FOREIGN_LINE_REMEDY)
    kinds = {_kind(line) for line in lines}
    if len(kinds) > 1:
        problem = f"has {' and '.join(sorted(kinds))} lines"
        raise fault("IN", file, problem, "write all of them one way, so that names of results last")
    for line in lines:
        parts = PurePosixPath(line.removeprefix(SCHEME)).parts
        if ".." in parts:
            raise fault("IN", file, f"line {line!r} leads upwards", "write it without ..")
        if not "".join(parts).strip("/"):
            raise fault("IN", file, f"line {line!r} names no file", "name one, or leave the line out")
        if line.startswith(f"{SCHEME}/"):
            raise fault("IN", file, f"line {line!r} names no bucket", f"write {SCHEME}BUCKET/KEY")
    kind = kinds.pop() if kinds else "relative"
    if kind == SCHEME:
        access.check()
        names = [line.removeprefix(SCHEME) for line in lines]
        return Inputs(ObjectStore("", access), None, lambda _: _unsized(names))
    base = Path("/") if kind == "absolute" else file.parent.resolve()
    paths = [str(PurePosixPath(line)).lstrip("/") for line in lines]
    return Inputs(FolderStore(base, settings), None, lambda _: _unsized(paths))


def _kind(line: str) -> str:
    return SCHEME if line.startswith(SCHEME) else "absolute" if line.startswith("/") else "relative"


def _unsized(paths: list[str]) -> Iterator[Input]:
    """Each path once, in the order of the list."""
    for path in dict.fromkeys(paths):
        yield Input(path, -1)


def _in_object_storage(named: str, access: Access) -> Inputs:
    whole = named.removeprefix(SCHEME).strip("/")
    glob = split_glob(whole) if is_glob(whole) else None
    base = whole if glob is None else glob.base
    is_meant = None if glob is None else glob.is_meant
    store = ObjectStore(base, access)
    if not base.strip("/"):  # a glob without a fixed folder has a slash
        raise fault("IN", named, "names no bucket", f"write {SCHEME}BUCKET/PREFIX")
    require(store, writes=False, name="IN", named=named)

    def entries(inputs: Inputs) -> Iterator[Input]:
        found = is_there = False
        try:
            for path, size in handed_over(store.entries(is_meant), lambda: inputs.is_stopped):
                is_there = True
                if is_candidate(path, recursive=True) and (glob is None or glob.matches(path)):
                    found = True
                    yield Input(path, size)
        except OSError as error:
            if is_refusal(error):
                raise fault("IN", named, told(error), "give keys that may list it") from error
            raise OSError(f"{named} can't be listed now: {told(error)}") from error
        if glob is not None and not found and not inputs.is_stopped:
            raise _no_match(named)
        if not is_there and not inputs.is_stopped:  # a bare "PREFIX/" is a folder's marker, no input
            raise fault("IN", named, NOTHING_BELOW.problem, NOTHING_BELOW.remedy)

    return Inputs(store, base, entries, is_meant)
