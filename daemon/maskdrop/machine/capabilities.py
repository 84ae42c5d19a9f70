"""What this process may do that its user alone may not (capabilities(7))."""

import re
from pathlib import Path

_CAP_FOWNER = 3
"""The capability's bit (``linux/capability.h``)."""


def may_move_what_is_others() -> bool:
    """Whether this process may rename others' files in others' sticky folders; True if that isn't known."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return True
    effective = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return effective is None or bool(int(effective[1], 16) >> _CAP_FOWNER & 1)
