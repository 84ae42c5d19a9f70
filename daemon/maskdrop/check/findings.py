"""What was found, kept on disk: a report on 100,000 broken files takes no more memory than one on ten."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from maskdrop.check.worker import Verdict
from maskdrop.spool import Spool
from maskdrop.ticket import Identity, Ticket


@dataclass(frozen=True)
class Finding:
    """A file that is broken or could not be read, or a folder that could not be read.

    Attributes:
        path: relative to the folder, as the os functions give it.
        done: what became of it, such as "moved to X"; "": nothing.
    """

    path: str
    verdict: Verdict
    error: str
    message: str
    identity: Identity
    done: str = ""

    @property
    def ticket(self) -> Ticket:
        return Ticket(0, self.path, self.identity)


class Findings:
    """Findings in an unnamed temporary file, in the order in which they came; can be read repeatedly."""

    def __init__(self) -> None:
        self._spool = Spool("maskdrop-check-")
        self.broken = self.unread = 0

    def add(self, finding: Finding) -> None:
        if finding.verdict is Verdict.BROKEN:
            self.broken += 1
        else:
            self.unread += 1
        self._spool.add({**asdict(finding), "verdict": finding.verdict.value})

    def __iter__(self) -> Iterator[Finding]:
        for entry in self._spool:
            identity = Identity(**entry.pop("identity"))
            yield Finding(**{**entry, "verdict": Verdict(entry["verdict"]), "identity": identity})

    def close(self) -> None:
        self._spool.close()


@dataclass
class Tally:
    """How far the check has come. `check.run.Check` is its only writer.

    Attributes:
        total: files that were there at the beginning.
        left_alone: links, pipes, sockets and devices, which are never opened.
    """

    total: int = 0
    checked: int = 0
    seconds: float = 0.0
    interrupted: bool = False
    left_alone: int = 0
