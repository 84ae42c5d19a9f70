"""Faces with label maps, for training and measuring: where they lie and how they split."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


@dataclass(frozen=True)
class Face:
    """One photograph and its label map, both on disk."""

    image: Path
    label: Path

    def load(self, size: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """The picture, uint8 (size, size, 3) RGB, and its labels, uint8 (size, size)."""
        with Image.open(self.image) as image, Image.open(self.label) as label:
            picture = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
            labels = label.resize((size, size), Image.Resampling.NEAREST)
            return np.asarray(picture).copy(), np.asarray(labels).copy()


def is_for_validation(stem: str) -> bool:
    """Whether a name is held back: the first byte of its SHA-1 divides by 7."""
    return hashlib.sha1(stem.encode(), usedforsecurity=False).digest()[0] % 7 == 0


def find_faces(folder: Path) -> tuple[list[Face], list[Face]]:
    """Training and validation faces of a folder that holds ``images/`` and ``labels/``.

    Raises:
        SystemExit: the folder holds no picture with a label map of the same name.
    """
    pairs = [
        Face(image, folder / "labels" / f"{image.stem}.png")
        for image in sorted((folder / "images").glob("*"))
    ]
    faces = [face for face in pairs if face.label.is_file()]
    if not faces:
        raise SystemExit(f"{folder}: no pictures in images/ with label maps of the same name in labels/")
    training = [face for face in faces if not is_for_validation(face.image.stem)]
    validation = [face for face in faces if is_for_validation(face.image.stem)]
    return training, validation
