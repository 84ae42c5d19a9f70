"""What the second look at small faces costs: portraits and small faces, with face.locate off, auto and on.

    python bench/locate.py [--pictures 40] [--repeats 3]

The known portrait at full frame, and at a third of a larger frame, through the real daemon with the
embedded weights; the modes take turns, medians of milliseconds a picture and ratios to "off" are printed.
"""

import argparse
import io
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from maskdrop.model.known import known_picture
from measured import machine, running

MODES = ("off", "auto", "on")
WARM = 4


def portrait() -> Image.Image:
    return Image.fromarray(known_picture(512))


def small_face() -> Image.Image:
    frame = Image.fromarray(np.full((1536, 1536, 3), 118, dtype=np.uint8))
    frame.paste(portrait(), (512, 512))
    return frame


def encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def milliseconds_a_picture(mode: str, content: bytes, count: int) -> float:
    base = Path(tempfile.mkdtemp(prefix="maskdrop-locate-"))
    try:
        (base / "inbox").mkdir()
        settings = f'[watch]\nsettle_ms = 0\n[face]\nlocate = "{mode}"\n'
        with running(base, settings) as daemon:
            drop(base, content, 0, WARM)
            daemon.wait_saved(WARM)
            began = time.monotonic()
            drop(base, content, WARM, WARM + count)
            daemon.wait_saved(WARM + count)
            return (time.monotonic() - began) * 1000 / count
    finally:
        shutil.rmtree(base)


def drop(base: Path, content: bytes, first: int, end: int) -> None:
    for number in range(first, end):
        (base / f"{number}.jpg").write_bytes(content)
        (base / f"{number}.jpg").rename(base / "inbox" / f"{number}.jpg")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pictures", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print(machine() + "\n")
    print("| picture | " + " | ".join(MODES) + " | auto / off | on / off |")
    print("|---|" + "---|" * (len(MODES) + 2), flush=True)
    for name, image in (("portrait, 512 x 512", portrait()), ("small face, 1,536 x 1,536", small_face())):
        content = encoded(image)
        times: dict[str, list[float]] = {mode: [] for mode in MODES}
        for _ in range(options.repeats):
            for mode in MODES:
                times[mode].append(milliseconds_a_picture(mode, content, options.pictures))
        medians = [statistics.median(times[mode]) for mode in MODES]
        cells = [f"{median:.0f} ms" for median in medians]
        ratios = [f"{median / medians[0]:.2f}" for median in medians[1:]]
        print("| " + " | ".join([name, *cells, *ratios]) + " |", flush=True)


if __name__ == "__main__":
    main()
