"""A drawn head: a picture that everybody may pass on."""

import numpy as np
from PIL import Image, ImageDraw


def draw_face(
    skin: tuple[int, int, int], wall: tuple[int, int, int], hair: tuple[int, int, int]
) -> Image.Image:
    """A simple drawn head of 480 x 600 pixels, shaded a little so that it looks less flat."""
    image = Image.new("RGB", (480, 600), wall)
    draw = ImageDraw.Draw(image)
    draw.ellipse((70, 20, 410, 470), fill=hair)
    draw.rectangle((190, 430, 290, 560), fill=tuple(int(c * 0.85) for c in skin))
    draw.ellipse((60, 520, 420, 760), fill=(70, 90, 80))
    draw.ellipse((100, 80, 380, 490), fill=skin)
    for x in (180, 300):
        draw.arc((x - 45, 190, x + 45, 250), 200, 340, fill=hair, width=10)
        draw.ellipse((x - 30, 235, x + 30, 265), fill=(250, 250, 250))
        draw.ellipse((x - 13, 236, x + 13, 264), fill=(60, 40, 30))
    draw.polygon([(240, 260), (212, 345), (268, 345)], fill=tuple(int(c * 0.88) for c in skin))
    draw.ellipse((185, 385, 295, 425), fill=(178, 60, 66))
    draw.line((190, 405, 290, 405), fill=(90, 20, 25), width=4)
    light = np.linspace(1.1, 0.8, 480)[np.newaxis, :, np.newaxis]
    return Image.fromarray(np.clip(np.asarray(image) * light, 0, 255).astype(np.uint8))
