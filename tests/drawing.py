"""Pictures that tests draw: something like a face, different for each seed."""

import io
import random

import numpy as np
from PIL import Image, ImageDraw


def draw_face(seed: int, width: int = 160, height: int = 200) -> Image.Image:
    """A noisy background with an oval, two eyes and a mouth."""
    chance = random.Random(seed)
    noise = np.random.default_rng(seed).integers(0, 60, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    draw = ImageDraw.Draw(image)
    skin = (chance.randint(150, 240), chance.randint(110, 190), chance.randint(90, 160))
    draw.ellipse((width * 0.2, height * 0.1, width * 0.8, height * 0.9), fill=skin)
    for x in (0.38, 0.62):
        draw.ellipse((width * x - 8, height * 0.4 - 5, width * x + 8, height * 0.4 + 5), fill=(30, 30, 90))
    draw.line((width * 0.4, height * 0.7, width * 0.6, height * 0.7), fill=(180, 40, 60), width=6)
    return image


def encode(image: Image.Image, form: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.copy().save(buffer, form, **options)
    return buffer.getvalue()


def face_bytes(seed: int, form: str = "JPEG", width: int = 160, height: int = 200) -> bytes:
    """An encoded drawing."""
    return encode(draw_face(seed, width, height), form)
