"""What decoding calls broken, and what it doesn't."""

import contextlib
import os
import resource

import pytest

from drawing import face_bytes
from maskdrop.config import DecodeSettings
from maskdrop.decoding import decode


def test_a_process_that_may_open_no_more_files_says_nothing_of_the_picture() -> None:
    content = face_bytes(1)
    assert decode(content, DecodeSettings()).size
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = [os.dup(0)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(opened) + 1, limits[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                opened.append(os.dup(0))
        with pytest.raises(OSError, match="Too many open files"):
            decode(content, DecodeSettings())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for descriptor in opened:
            os.close(descriptor)
    assert decode(content, DecodeSettings()).size
