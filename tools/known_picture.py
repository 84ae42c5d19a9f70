"""Makes the picture and labels that ``maskdrop model check`` compares with.

    python tools/known_picture.py

The picture is cut from the astronaut photograph that scikit-image ships (NASA, public domain:
Eileen Collins, 1999); the labels are those of the embedded weights in fp32. Run it again
whenever the embedded weights change; a test fails where that was forgotten.
"""

from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from maskdrop.config import MODEL_SIDE, ModelSettings
from maskdrop.model.known import known_picture
from maskdrop.model.parser import load_parser

FOLDER = Path(__file__).parent.parent / "daemon" / "maskdrop" / "weights"


def main() -> None:
    face = Image.fromarray(data.astronaut()).crop((128, 0, 328, 200))
    face = face.resize((MODEL_SIDE, MODEL_SIDE), Image.Resampling.LANCZOS)
    face.save(FOLDER / "known-face.jpg", quality=88)
    parser = load_parser(ModelSettings(precision="fp32"), "cpu")
    labels = parser.parse(known_picture(MODEL_SIDE)[np.newaxis])[0]
    Image.fromarray(labels).save(FOLDER / "known-labels.png", optimize=True)


if __name__ == "__main__":
    main()
