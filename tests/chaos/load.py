"""What is dropped: photographs where there are any, drawings, and broken files; under all kinds of names."""

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from broken_files import broken_files
from drawing import face_bytes

BROKEN = 0.1
FOLDERS = ("", "", "", "a", "a/b", "päckchen", "with space", os.fsdecode(b"odd\xff\xfe"), "line\nbreak")
STEMS = ("{}", "img {}", "über-{}", "{}.tar", os.fsdecode(b"\xff{}"), "new\nline-{}", "-rf {}", "%s{}\\x")


@dataclass(frozen=True)
class Dropping:
    """One file to drop. Every content is another one, but for the empty and one-byte files."""

    path: str
    content: bytes
    good: bool


def droppings(seed: int, pictures: int, faces: list[Path]) -> Iterator[Dropping]:
    """So many files, made one at a time."""
    chance = random.Random(seed)
    broken = sorted(broken_files().items())
    drawn = [face_bytes(index, form) for index, form in enumerate(("JPEG", "PNG", "WEBP", "BMP") * 5)]
    for index in range(pictures):
        folder, stem = chance.choice(FOLDERS), chance.choice(STEMS).format(index)
        good = chance.random() >= BROKEN
        if not good:
            name, content = chance.choice(broken)
            stem += "." + name.rpartition(".")[2]
        else:
            content = chance.choice(faces).read_bytes() if faces else chance.choice(drawn)
            stem += ".jpg"
        if len(content) > 1:
            content += f"#{index}".encode()  # behind the picture's end, where no decoder looks
        yield Dropping(f"{folder}/{stem}" if folder else stem, content, good)
