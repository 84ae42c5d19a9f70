"""How the network does on what inboxes hold: validation faces small, turned, grey, dark, in few pixels.

    python tools/robustness.py FACES [--weights FILE] [--json FILE] [--sheet FILE]

Each condition changes picture and labels alike; IoU is measured as in evaluate.py. With --sheet,
a picture of twelve results is written: the public-domain portrait and a drawn face under each
condition, since the validation pictures may not be passed on.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from drawn_face import draw_face
from evaluate import BATCH, confusion, intersection_over_union
from faces import find_faces
from maskdrop.config import MODEL_SIDE, ModelSettings
from maskdrop.model.known import known_picture
from maskdrop.model.parser import FaceParser, load_parser
from maskdrop.parts import Part
from maskdrop.results.mask import overlay

Pixels = NDArray[np.uint8]
Change = Callable[[Image.Image], Image.Image]
TILE = 192
LARGE = [Part.SKIN, Part.NOSE, Part.UPPER_LIP, Part.LOWER_LIP, Part.HAIR]


@dataclass(frozen=True)
class Condition:
    """What is done to a picture, and to its label map."""

    name: str
    picture: Change
    labels: Change


def same(image: Image.Image) -> Image.Image:
    return image


def placed(image: Image.Image, side: int, resample: Image.Resampling, ground: int) -> Image.Image:
    """The picture at another size in the middle of a plain frame."""
    frame = Image.new(image.mode, image.size, (ground,) * 3 if image.mode == "RGB" else 0)
    start = (image.width - side) // 2
    frame.paste(image.resize((side, side), resample), (start, start))
    return frame


def shrunk(share: float) -> Condition:
    side = round(MODEL_SIDE * share)
    bilinear, nearest = Image.Resampling.BILINEAR, Image.Resampling.NEAREST
    return Condition(
        f"face at {share:.2f} of the frame",
        lambda image: placed(image, side, bilinear, 118),
        lambda image: placed(image, side, nearest, 0),
    )


def turned(degrees: float) -> Condition:
    return Condition(
        f"turned by {degrees:.0f} degrees",
        lambda image: image.rotate(degrees, Image.Resampling.BILINEAR),
        lambda image: image.rotate(degrees, Image.Resampling.NEAREST),
    )


def few_pixels(side: int) -> Condition:
    def change(image: Image.Image) -> Image.Image:
        small = image.resize((side, side), Image.Resampling.BILINEAR)
        return small.resize(image.size, Image.Resampling.BILINEAR)

    return Condition(f"only {side} x {side} pixels", change, same)


CONDITIONS = (
    Condition("as it is", same, same),
    shrunk(1 / 3),
    turned(30),
    Condition("black and white", lambda image: image.convert("L").convert("RGB"), same),
    Condition(
        "dark (a quarter of the light)", lambda image: ImageEnhance.Brightness(image).enhance(0.25), same
    ),
    few_pixels(96),
)


def measure(
    parser: FaceParser, pairs: list[tuple[Pixels, Pixels]], condition: Condition
) -> NDArray[np.float64]:
    """IoU of each class under a condition."""
    counts = np.zeros((len(Part), len(Part)), dtype=np.int64)
    for start in range(0, len(pairs), BATCH):
        some = pairs[start : start + BATCH]
        pictures = [np.asarray(condition.picture(Image.fromarray(picture))) for picture, _ in some]
        truths = [np.asarray(condition.labels(Image.fromarray(labels))) for _, labels in some]
        counts += confusion(np.stack(truths), parser.parse(np.stack(pictures)), len(Part))
    return intersection_over_union(counts)


def sheet(parser: FaceParser) -> Image.Image:
    """Two faces under each of the six conditions, picture beside overlay: twelve results."""
    drawn = draw_face((206, 160, 130), (90, 100, 120), (60, 40, 30)).crop((0, 0, 480, 480))
    faces = [Image.fromarray(known_picture(MODEL_SIDE)), drawn.resize((MODEL_SIDE, MODEL_SIDE))]
    page = Image.new("RGB", (4 * TILE, len(CONDITIONS) * TILE), "white")
    for row, condition in enumerate(CONDITIONS):
        for column, face in enumerate(faces):
            picture = np.array(condition.picture(face))
            tinted = overlay(picture, parser.parse(picture[np.newaxis])[0])
            for half, pixels in enumerate((picture, tinted)):
                tile = Image.fromarray(pixels).resize((TILE - 4, TILE - 4), Image.Resampling.LANCZOS)
                page.paste(tile, ((2 * column + half) * TILE + 2, row * TILE + 2))
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("faces", type=Path, help="folder with images/ and labels/")
    parser.add_argument("--weights", type=Path, help="in place of the embedded weights")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    parser.add_argument("--sheet", type=Path, help="write the picture of twelve results there")
    options = parser.parse_args()

    network = load_parser(ModelSettings(weights=options.weights), options.device)
    if options.sheet:
        sheet(network).save(options.sheet, quality=88)
    _, validation = find_faces(options.faces)
    pairs = [face.load(MODEL_SIDE) for face in validation]
    figures = {}
    for condition in CONDITIONS:
        scores = measure(network, pairs, condition)
        large = float(np.mean(scores[LARGE]))
        mean = float(np.nanmean(scores))
        figures[condition.name] = {"miou": round(mean, 3), "large_parts": round(large, 3)}
        print(f"{condition.name:32} mIoU {mean:.3f}, skin, nose, lips and hair {large:.3f}")
    if options.json:
        content = {"weights_sha256": network.info.sha256, "conditions": figures}
        options.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
