"""Makes docs/images/sheet.png: `maskdrop sheet` in a browser, on pictures that everybody may pass on.

    python tools/sheet_image.py [FILE]      # needs a browser: see tools/browser.py

The photograph is Eileen Collins's (NASA, public domain), which scikit-image ships; the other heads are drawn.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from skimage import data

from browser import browser
from drawn_face import draw_face

IMAGE = Path(__file__).parent.parent / "docs" / "images" / "sheet.png"

SKINS = ((226, 180, 150), (150, 104, 76), (196, 150, 120))
WALLS = ((60, 90, 140), (190, 170, 120), (120, 150, 110))
HAIRS = ((70, 45, 30), (20, 18, 18), (180, 140, 70))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, default=IMAGE)
    file = parser.parse_args().file
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        put_pictures(base / "in")
        (base / "maskdrop.toml").write_text('[save]\noutputs = ["labels", "overlay", "face", "cutout"]\n')
        folders = [str(base / "in"), str(base / "outbox")]
        config = ["--config", str(base / "maskdrop.toml"), "--quarantine", str(base / "quarantine")]
        maskdrop("batch", *folders, *config)
        maskdrop("sheet", str(base / "outbox"), "--originals", str(base / "in"))
        with browser() as chromium:
            page = chromium.new_page(viewport={"width": 1500, "height": 860})
            page.goto((base / "sheet" / "index.html").as_uri())
            page.wait_for_function(
                "[...document.querySelectorAll('main img')].slice(0, 20).every((i) => i.complete)"
            )
            page.screenshot(path=file)


def put_pictures(folder: Path) -> None:
    """Drawn heads, the photograph whole and cut, and two broken files."""
    folder.mkdir()
    for number, (skin, wall, hair) in enumerate(zip(SKINS, WALLS, HAIRS, strict=True), start=1):
        draw_face(skin, wall, hair).save(folder / f"drawn-{number}.jpg")
    astronaut = Image.fromarray(data.astronaut())
    astronaut.save(folder / "astronaut.png")
    face = astronaut.crop((145, 0, 305, 200)).resize((640, 800), Image.Resampling.LANCZOS)
    face.save(folder / "astronaut-face.jpg")
    whole = (folder / "drawn-1.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "notes.jpg").write_text("These are my holiday notes, not a picture.\n")


def maskdrop(*arguments: str) -> None:
    """Run a command; a batch with broken pictures ends with 1, as it should."""
    done = subprocess.run([sys.executable, "-m", "maskdrop", *arguments], check=False)
    if done.returncode not in (0, 1):
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
