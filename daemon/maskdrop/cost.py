"""What a picture costs a stage: its workers measure it on a known portrait before they are ready."""

import io
import time
from collections.abc import Callable
from importlib.resources import files

from PIL import Image

from maskdrop.ticket import Cost

TURNS = 5
"""How many turns are measured. The least counts: other programs can only add to it."""


def cost_of(act: Callable[[], object], pictures: int = 1, turns: int = TURNS) -> Cost:
    """Do something once to warm up, then ``turns`` times; its least cost for each of ``pictures``."""
    act()
    spent = []
    for _ in range(turns):
        began, computed = time.perf_counter(), time.process_time()
        act()
        spent.append((time.perf_counter() - began, time.process_time() - computed))
    least = [1000 * min(kind) / pictures for kind in zip(*spent, strict=True)]
    return Cost(*least)


def known_portrait(side: int) -> bytes:
    """A JPEG of side x side pixels of a portrait in the public domain (NASA: Eileen Collins)."""
    content = (files("maskdrop") / "weights" / "known-face.jpg").read_bytes()
    with Image.open(io.BytesIO(content)) as image:
        if image.size == (side, side):
            return content
        buffer = io.BytesIO()
        image.resize((side, side)).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()
