"""bench/full_width.py: a network of the public checkpoint's size that labels as the embedded one does."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from safetensors.torch import load_file

from maskdrop.config import MODEL_SIDE, ModelSettings
from maskdrop.model.known import known_picture
from maskdrop.model.parser import load_parser
from maskdrop.model.weights import AUXILIARY
from public_checkpoint import public_shapes

PROGRAM = Path(__file__).parent.parent / "bench" / "full_width.py"


def test_it_has_the_public_sizes_and_labels_a_face_as_the_embedded_network_does(tmp_path: Path) -> None:
    file = tmp_path / "full.safetensors"
    subprocess.run([sys.executable, str(PROGRAM), str(file)], check=True)
    wanted = {name: shape for name, shape in public_shapes().items() if not name.startswith(AUXILIARY)}
    assert {name: tuple(tensor.shape) for name, tensor in load_file(file).items()} == wanted
    face = known_picture(MODEL_SIDE)[None]
    full, embedded = (
        load_parser(ModelSettings(weights=weights, precision="fp32"), "cpu").parse(face)
        for weights in (file, None)
    )
    assert np.array_equal(full, embedded)
