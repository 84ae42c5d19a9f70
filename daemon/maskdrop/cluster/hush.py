"""Standard error for ourselves alone: Ray's C++ part writes there too, past Python."""

import os
import sys


class Hush:
    """From now on, who writes to descriptor 2 is not heard, and Python's ``sys.stderr`` is."""

    def __init__(self) -> None:
        sys.stderr.flush()
        self._before, self._heard = sys.stderr, os.dup(2)
        nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        sys.stderr = open(  # noqa: SIM115 - a descriptor, open until the end
            self._heard, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False
        )

    def end(self) -> None:
        """As it was before; once is enough."""
        if self._heard >= 0:
            sys.stderr.flush()
            sys.stderr = self._before
            os.dup2(self._heard, 2)
            os.close(self._heard)
            self._heard = -1
