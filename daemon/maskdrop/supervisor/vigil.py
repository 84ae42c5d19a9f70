"""Whether every stage answers: only then is systemd's watchdog fed. Pure: times are passed in."""

from maskdrop.ticket import Stage


class Vigil:
    """Owner of when each stage last answered, or last had nothing to answer.

    A hung worker is killed after `stage_timeout_s`, and its successor is ready, or killed in turn,
    after `start_timeout_s`. A stage that has work and has been silent for longer than both is past
    what the supervisor can mend: a worker that even SIGKILL doesn't end, or none that ever starts.
    """

    def __init__(self, stage_timeout_s: float, start_timeout_s: float, now: float) -> None:
        self._limit = stage_timeout_s + start_timeout_s
        self._answered_at = dict.fromkeys(Stage, now)

    def note_answer(self, stage: Stage, now: float) -> None:
        """A worker of the stage reported something."""
        self._answered_at[stage] = now

    def forgive(self, seconds: float, now: float) -> None:
        """Ignore so many seconds of silence: the supervisor itself was stopped."""
        self._answered_at = {stage: min(now, at + seconds) for stage, at in self._answered_at.items()}

    def silent(self, busy: set[Stage], now: float) -> list[Stage]:
        """The stages that should have answered long ago.

        Args:
            busy: stages that have work, whether a worker holds it or it waits.
        """
        for stage in Stage:
            if stage not in busy:
                self._answered_at[stage] = now
        return [stage for stage in Stage if now - self._answered_at[stage] > self._limit]
