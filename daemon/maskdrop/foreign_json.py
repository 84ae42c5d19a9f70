"""JSON that anybody may have written."""

import json
from typing import Any


def loads(content: bytes | str) -> Any:
    """What it says.

    Raises:
        ValueError: it is none, or nested so deeply that Python doesn't read it.
    """
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
