"""Object storage that speaks S3. A PUT is whole or not at all, so nothing half-written ever has a name."""

import contextlib
import io
import mimetypes
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from pyarrow import ArrowInvalid, NativeFile, fs

from maskdrop.cluster.access import Access, file_system
from maskdrop.cluster.schemes import SCHEME
from maskdrop.cluster.stores import PROBE, Unfit
from maskdrop.decoding import BrokenPicture
from maskdrop.durable import FolderTrouble
from maskdrop.leave_alone import LeaveAlone, UnfitName
from maskdrop.names import fit
from maskdrop.outbox import marks
from maskdrop.results.names import Result
from maskdrop.results.provenance import source_in
from maskdrop.ticket import Absence

_PART = 10 * 2**20
"""Bytes from which on Arrow uploads in parts (its kPartUploadSize); fewer take one PUT."""

_SMALL = 2**20
"""Bytes up to which an object is read whole, even if little of it is needed: each read is a request."""

_REFUSED = re.compile(
    "AWS Error (ACCESS_DENIED|INVALID_ACCESS_KEY_ID|INVALID_CLIENT_TOKEN_ID|UNRECOGNIZED_CLIENT"
    "|INVALID_SIGNATURE|SIGNATURE_DOES_NOT_MATCH|MISSING_AUTHENTICATION_TOKEN"
    r"|NO_SUCH_BUCKET|NO_SUCH_KEY|RESOURCE_NOT_FOUND|UNKNOWN \(HTTP status 40[134]\))"
)
"""Errors that no retry changes, as Arrow words them (ErrorToStatus in its s3_internal.h)."""

_BUSY = re.compile(
    "AWS Error (INTERNAL_FAILURE|SERVICE_UNAVAILABLE|SLOW_DOWN|THROTTLING|REQUEST_TIME_OUT"
    r"|UNKNOWN \(HTTP status (429|5\d\d)\))"
)
"""Answers that say that the trouble is temporary. No answer at all may also mean a wrong endpoint."""

_COLON = "no bucket has a colon in its name"

_COLON_REMEDY = f"write {SCHEME}BUCKET/…, where an access point has an alias for BUCKET"

_SLASH = "a key that ends in a slash can't be read; rename it"

_CONTENT_TYPES = {
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".json": "application/json",
}
"""Of results: `mimetypes` alone knows what the machine's own table has, in which WebP may be missing."""

NOTHING_BELOW = Unfit("no object lies below it", "mend the prefix, or name objects in a list file")


@dataclass(frozen=True)
class ObjectStore:
    """All keys below ``base``, a bucket and a prefix in it; "" where each path begins with its own bucket."""

    base: str
    access: Access

    @property
    def address(self) -> str:
        return f"{SCHEME}{self.base}"

    @property
    def is_remote(self) -> bool:
        return True

    def read(self, path: str, most: int) -> bytes:
        try:
            with self._opened(path) as file:
                size = file.size()
                if size == 0:
                    raise BrokenPicture("EmptyFile", "the object is empty")
                if size > most:
                    raise BrokenPicture(
                        "TooManyBytes", f"{size} bytes are more than decode.max_bytes = {most}"
                    )
                content: bytes = file.read()
        except FileNotFoundError as error:
            raise LeaveAlone(Absence.GONE, "no such object any more") from error
        except OSError as error:
            raise LeaveAlone(Absence.STUCK, told(error)) from error
        if len(content) != size:
            raise LeaveAlone(Absence.CHANGED, "changed while it was read")
        return content

    def unreached(self, path: str) -> LeaveAlone:
        """Why there is no such object: its key may end in a slash, which Arrow leaves out when it lists."""
        with contextlib.suppress(OSError):
            if self._files(path).get_file_info(self._key(path)).type == fs.FileType.Directory:
                return UnfitName(f"it is no key, but what others begin with; {_SLASH}")
        return LeaveAlone(Absence.GONE, "no such object any more")

    def publish(self, path: str, sha256: str, results: list[Result], is_shared: bool) -> tuple[str, ...]:
        """Names are as in a folder. A PUT replaces whatever has the name, so inputs that share names get
        names marked by their content, unless the unmarked ones are theirs already.
        """
        names = self._free_names(PurePosixPath(path), sha256, results, is_shared)
        for name, result in zip(names, results, strict=True):
            self.put(name, result.content)
        return tuple(names)

    def put(self, path: str, content: bytes, unfinished: str = "") -> None:
        try:
            with _as_os_errors():
                self._put(path, content)
        except OSError as error:
            raise self._trouble(path, error) from error

    def _put(self, path: str, content: bytes) -> None:
        kind = {"Content-Type": _content_type(path)}
        files, key = self._files(path), self._key(path)
        # By default, Arrow compresses objects whose name ends like a compressed file's.
        stream = files.open_output_stream(key, compression=None, metadata=kind)
        try:
            with stream:
                stream.write(content)
        except OSError:  # the stream was closed all the same: the parts sent may have become the object
            if len(content) >= _PART:
                with contextlib.suppress(OSError):
                    files.delete_file(key)
            raise

    def put_new(self, path: str, content: bytes, unfinished: str = "") -> bool:
        if self.has(path):
            return False
        self.put(path, content)
        return True

    def has(self, path: str) -> bool:
        try:
            with self._opened(path):
                return True
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._trouble(path, error) from error

    def get(self, path: str) -> bytes:
        with self._opened(path) as file:
            content: bytes = file.read()
        return content

    def names(self, folder: str) -> list[str]:
        return sorted(name for name, size in self._listed(folder, recursive=False) if size is not None)

    def entries(self, is_meant: Callable[[str], bool] | None) -> Iterator[tuple[str, int]]:
        """Path and size in bytes of every object.

        Args:
            is_meant: says for each first name below the prefix whether to list it; None: all are listed.

        Raises:
            OSError: the prefix can't be listed.
        """
        if is_meant is None:
            yield from ((path, size) for path, size in self._listed("", recursive=True) if size is not None)
            return
        for name, size in self._listed("", recursive=False):
            if size is not None and is_meant(name):
                yield name, size
            elif size is None and name and is_meant(name):
                below = self._listed(name, recursive=True)
                yield from ((f"{name}/{path}", size) for path, size in below if size is not None)

    def remove(self, path: str) -> None:
        try:
            with _as_os_errors():
                self._files(path).delete_file(self._key(path))
        except FileNotFoundError:
            pass
        except OSError as error:
            raise self._trouble(path, error) from error

    def check(self, writes: bool) -> Unfit | None:
        bucket = self.base.partition("/")[0]
        if not bucket:  # each path names one
            return None
        if ":" in bucket:
            return Unfit(_COLON, _COLON_REMEDY)
        try:
            with _as_os_errors():
                return self._lack(bucket, writes)
        except LeaveAlone as error:
            return Unfit(str(error), "name another prefix")
        except FolderTrouble as error:
            return _unfit(error.error, "give keys that may write there (AWS_ACCESS_KEY_ID, …)")
        except OSError as error:
            return _unfit(error, "give keys that may (AWS_ACCESS_KEY_ID, …), or mend the endpoint")

    def _lack(self, bucket: str, writes: bool) -> Unfit | None:
        """What the place lacks; None: nothing.

        Raises:
            LeaveAlone, FolderTrouble, OSError: the place can't be used.
        """
        if self._files("").get_file_info(bucket).type == fs.FileType.NotFound:
            return Unfit("no such bucket", "make it, or mend its name or the endpoint")
        if not writes:
            return None if self._is_prefix() else NOTHING_BELOW
        self.put(PROBE, b"maskdrop may write here\n")
        with contextlib.suppress(FolderTrouble):  # keys that may not remove may still write
            self.remove(PROBE)
        return None

    def _is_prefix(self) -> bool:
        """Whether any key begins with the base and a slash. If an object has the base's own name, Arrow
        reports only that object, so the names below are listed instead."""
        kind = self._files("").get_file_info(self.base).type
        if kind == fs.FileType.File:
            return next(self._listed("", recursive=False), None) is not None
        return bool(kind == fs.FileType.Directory)

    def _listed(self, folder: str, recursive: bool) -> Iterator[tuple[str, int | None]]:
        """Names below a folder, with sizes in bytes; None for a folder's."""
        top = self._key(folder)
        selector = fs.FileSelector(top, allow_not_found=True, recursive=recursive)
        for found in self._files(folder).get_file_info(selector):
            is_file = found.type == fs.FileType.File
            yield found.path[len(top) + 1 :], int(found.size) if is_file else None

    def _free_names(
        self, path: PurePosixPath, sha256: str, results: list[Result], is_shared: bool
    ) -> list[str]:
        """Names with the first mark for which each is free, or this picture's already."""
        for mark in marks(sha256):
            names = [str(path.parent / fit(path.stem, mark + result.tail)) for result in results]
            if all(self._may_take(name, sha256, may_be_new=bool(mark) or not is_shared) for name in names):
                return names
        raise AssertionError("marks never end")

    def _may_take(self, name: str, sha256: str, may_be_new: bool) -> bool:
        try:
            with self._opened(name) as file:
                owner = source_in(file if file.size() > _SMALL else io.BytesIO(file.read()), name)
        except FileNotFoundError:
            return may_be_new
        except OSError as error:
            raise FolderTrouble(f"{SCHEME}{self._key(name)}", OSError(error.errno, told(error))) from error
        return owner == sha256

    def _trouble(self, path: str, error: OSError) -> FolderTrouble:
        return FolderTrouble(f"{SCHEME}{self._key(path)}", OSError(told(error)))

    def _key(self, path: str) -> str:
        """Bucket and key.

        Raises:
            UnfitName: there can be no such key, or Arrow can't use it: it refuses one that ends in a slash,
                and takes a bucket with a colon for the scheme of a URL.
        """
        key = "/".join(part for part in (self.base, path) if part)
        if ":" in key.partition("/")[0]:
            raise UnfitName(f"{_COLON}; {_COLON_REMEDY}")
        if key.endswith("/"):
            raise UnfitName(_SLASH)
        if "//" in key or key.encode("utf-8", "replace").decode() != key:
            problem = "object storage takes no name that is not UTF-8, or with // in it"
            raise UnfitName(f"{problem}; rename it")
        return key

    @contextlib.contextmanager
    def _opened(self, path: str) -> Iterator[NativeFile]:
        """An object opened for reading; any refusal of Arrow's is raised as an OSError."""
        with _as_os_errors(), self._files(path).open_input_file(self._key(path)) as file:
            yield file

    def _files(self, path: str) -> fs.S3FileSystem:
        return file_system(self.access, self._key(path).partition("/")[0])


@contextlib.contextmanager
def _as_os_errors() -> Iterator[None]:
    """Turn the ValueError that Arrow raises for an impossible name or address into an OSError."""
    try:
        yield
    except ArrowInvalid as error:
        raise OSError(str(error)) from error


def _unfit(error: OSError, remedy: str) -> Unfit:
    passes = _BUSY.search(str(error)) is not None
    return Unfit(told(error), "give the same command later" if passes else remedy, passes)


def _content_type(path: str) -> str:
    ours = _CONTENT_TYPES.get(PurePosixPath(path).suffix)
    return ours or mimetypes.guess_type(path)[0] or "application/octet-stream"


def is_refusal(error: OSError) -> bool:
    """Whether object storage refuses, so that asking again is no use; False also if that can't be told."""
    return isinstance(error, (FileNotFoundError, PermissionError)) or _REFUSED.search(str(error)) is not None


def told(error: BaseException) -> str:
    """What object storage says, on one line and without internal details."""
    text = " ".join(str(error).split()).partition("; Details:")[0]
    return os.fsencode(text).decode("utf-8", "replace")[:300] or type(error).__name__
