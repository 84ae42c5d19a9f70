"""What can happen: each kind has an identity of its own, for programs that read the log."""

from enum import Enum


class Event(Enum):
    """A kind of log line; the value is its journal MESSAGE_ID (made once with ``systemd-id128 new``).

    ``systemd/maskdrop.catalog`` says, by these identities, what each kind means and what to do.
    """

    SAVED = "6f9e3ae4e1ce466d86abf578798fceb8"
    QUARANTINED = "790691779dea48e28cefc6e6284fbbe6"
    LEFT = "a1366c82a4ac456abd9df962545a9eb6"
    WORKER_DIED = "8953733d8ffb41fdb2a21968db23c3fe"
    READY = "b52c1bdf13e748db982edf046440b174"
    STALLED = "896fe9edf15b45438e306ebe31622c23"
    MENDED = "039e7ad98a4440eb9c7cba8a3f29e1da"
    DRAINING = "91980914b1a245a5a3f164fbbc4bb230"
    ENDED = "07828ca643844d23a17bf89f60a71619"
    RELOADED = "86ef8ec43c0448618c96d8bb87b23c06"
    RELOAD_REFUSED = "ade3cd092d204859a359a7f0332dfaca"
