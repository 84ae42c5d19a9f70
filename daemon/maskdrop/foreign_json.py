"""JSON that anybody may have written."""

import json
from typing import Any


def loads(content: bytes | str) -> Any:
    """What the JSON says.

    Raises:
        ValueError: the content is no JSON, or nested too deeply for Python.
    """
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
