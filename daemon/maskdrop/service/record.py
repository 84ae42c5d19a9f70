"""What was installed, and so which files somebody edited since; judged as dpkg judges configuration files."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path

from maskdrop import foreign_json
from maskdrop.service.layout import RECORD


class Verdict(Enum):
    """What becomes of a file that should have a certain content."""

    NEW = "new"
    SAME = "as it should be"
    NEWER = "newer, nobody had edited it"
    EDITED = "edited: kept, and the newer one put beside it"
    SETTLED = "edited: kept"
    FORCED = "edited: replaced, and the edited one put beside it"


def judge(present: bytes | None, wanted: bytes, recorded: str | None, force: bool) -> Verdict:
    """Compare what is there, what should be, and the digest of what was installed last.

    A file that differs from what was installed was edited. Without ``force`` it is kept, as dpkg keeps it;
    the wanted one is put beside it only if that too differs from what was installed.
    """
    if present is None:
        return Verdict.NEW
    if present == wanted:
        return Verdict.SAME
    if digest(present) == recorded:
        return Verdict.NEWER
    if force:
        return Verdict.FORCED
    return Verdict.SETTLED if digest(wanted) == recorded else Verdict.EDITED


def digest(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class Record:
    """What `maskdrop service install` did last.

    Attributes:
        environment: the virtual environment that the units name.
        made_environment: whether an installation made it, and so may remove it.
        instances: those that were asked for.
        files: the SHA-256 of what was installed, by absolute path.
    """

    version: str
    environment: str
    made_environment: bool
    instances: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)

    def encoded(self) -> bytes:
        return (json.dumps(asdict(self), indent=2, sort_keys=True) + "\n").encode()


class RecordUnreadable(Exception):
    """The record is damaged; the message says what to do."""


def read_record(root: Path) -> Record | None:
    """The record below a root folder; None where nothing was installed.

    Raises:
        RecordUnreadable: it can't be read, or isn't a record.
    """
    path = root / RECORD.relative_to("/")
    try:
        return Record(**foreign_json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RecordUnreadable(f"{path}: {error.strerror}; try again as root") from error
    except (ValueError, TypeError) as error:
        problem = "is no record of an installation"
        raise RecordUnreadable(
            f"{path}: {problem}; remove it and install again: edited files are kept"
        ) from error
