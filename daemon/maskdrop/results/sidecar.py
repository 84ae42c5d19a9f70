"""The JSON beside a picture's results: classes, areas, faces, confidence, model, times. Opens no files."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskdrop import __version__
from maskdrop.locate import face_boxes
from maskdrop.names import printable
from maskdrop.ticket import Judged, Region, Save

MOST_FACES = 64
"""How many faces are listed at most, the largest first."""


def judged(model: str, certainty: NDArray[np.float64]) -> Judged:
    """The summary of one picture's certainty.

    Args:
        model: SHA-256 of the weights' file.
        certainty: (classes, 2): the sum of the probabilities of each class's pixels, and their number.
    """
    total, count = certainty.sum(axis=0)
    present = np.flatnonzero(certainty[:, 1])
    by_class = tuple((int(n), float(certainty[n, 0] / certainty[n, 1])) for n in present)
    return Judged(model, float(total / count) if count else 0.0, by_class)


def sidecar(task: Save, labels: NDArray[np.uint8], classes: Sequence[str]) -> bytes:
    """The content of a picture's JSON file.

    Args:
        labels: uint8 (height, width), at the picture's own size.
        classes: names of the labels.
    """
    faces = [_box(face) for face in face_boxes(labels, classes)[:MOST_FACES]]
    told: dict[str, Any] = {
        "picture": printable(task.ticket.path),
        "sha256": task.facts.sha256,
        "width": task.facts.width,
        "height": task.facts.height,
        "maskdrop": __version__,
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "model": {"sha256": task.judged.model if task.judged else None},
        "confidence": round(task.judged.confidence, 4) if task.judged else None,
        "classes": _classes(task, labels, classes),
        "face": faces[0] if faces else None,
        "faces": faces,
        "views": [_box(region) for region in task.regions],
        "ms": {stage: round(spent, 1) for stage, spent in task.milliseconds.items()},
    }
    return json.dumps(told, indent=2, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def _classes(task: Save, labels: NDArray[np.uint8], classes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Pixels, share and confidence of each class that is present."""
    counts = Image.fromarray(labels).histogram()  # by value; numpy would widen every label to count it
    sure = dict(task.judged.by_class) if task.judged else {}
    return {
        classes[number]: {
            "pixels": int(counts[number]),
            "share": round(float(counts[number] / labels.size), 6),
            "confidence": round(sure[number], 4) if number in sure else None,
        }
        for number in map(int, np.flatnonzero(counts))
    }


def _box(region: Region) -> dict[str, int]:
    return {"left": region.left, "top": region.top, "width": region.width, "height": region.height}
