"""While a folder can't take files: work pauses, and one picture at a time tries again."""

TRY_AGAIN_S = 1.0


class Stall:
    """Why saving pauses, if it does, and when it is tried again."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self.next_try: float | None = None

    def begin(self, reason: str, now: float) -> bool:
        """Saving failed. True where that is news."""
        news = reason != self.reason
        self.reason, self.next_try = reason, now + TRY_AGAIN_S
        return news

    def may_try(self, now: float) -> bool:
        """Whether one picture may try now; the next may after `TRY_AGAIN_S`."""
        if self.next_try is None or now < self.next_try:
            return False
        self.next_try = now + TRY_AGAIN_S
        return True

    def end(self) -> bool:
        """Saving worked. True where that is news."""
        news = self.reason is not None
        self.reason = self.next_try = None
        return news
