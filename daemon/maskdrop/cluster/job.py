"""What every task and actor of a cluster's batch is given."""

from dataclasses import dataclass

from maskdrop.cluster.attempts import Attempts
from maskdrop.cluster.stores import Store
from maskdrop.config import Settings


@dataclass(frozen=True)
class Job:
    """A batch on a cluster, as far as its stages need to know it.

    Attributes:
        quarantine: where copies of broken pictures go; None: nowhere.
        weights_sha256: of the weights on the machine that started the batch; "": not known.
    """

    settings: Settings
    source: Store
    target: Store
    quarantine: Store | None
    attempts: Attempts
    weights_sha256: str = ""

    @property
    def most_attempts(self) -> int:
        return self.settings.workers.max_attempts

    @property
    def longest(self) -> float:
        """Seconds after which a process working at one picture, or at one batch, counts as hung."""
        return self.settings.workers.stage_timeout_s
