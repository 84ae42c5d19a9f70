"""The network and its weights: people's checkpoints load, wrong files are named, labels are right."""

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file

from drawing import draw_face
from maskdrop.config import ModelSettings
from maskdrop.model.bisenet import BiSeNet
from maskdrop.model.embedded import embedded_weights
from maskdrop.model.errors import WeightsError
from maskdrop.model.load import load_network
from maskdrop.model.normalise import normalise
from maskdrop.model.parser import FaceParser, load_parser
from maskdrop.model.precision import choose_precision
from maskdrop.model.weights import Card, save_weights
from public_checkpoint import public_checkpoint, public_shapes
from weights_for_tests import tiny_network

Save = Callable[[object, str], Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Writes something with torch.save and gives its path."""

    def write(content: object, name: str = "79999_iter.pth") -> Path:
        path = tmp_path / name
        torch.save(content, path)
        return path

    return write


def test_names_and_shapes_are_the_public_checkpoints() -> None:
    ours = {name: tuple(tensor.shape) for name, tensor in BiSeNet().state_dict().items()}
    assert ours == public_shapes()


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "before-torch-1.6"])
def test_the_public_checkpoint_loads_as_it_is(tmp_path: Path, legacy: bool) -> None:
    tensors = public_checkpoint()
    path = tmp_path / "79999_iter.pth"
    torch.save(tensors, path, _use_new_zipfile_serialization=not legacy)
    loaded = load_network(path)
    assert loaded.network.width == 1.0
    assert not loaded.network.training
    for name, tensor in loaded.network.state_dict().items():
        assert torch.equal(tensor, tensors[name]), name


def test_a_checkpoint_without_auxiliary_heads_loads(save: Save) -> None:
    tensors = {n: t for n, t in public_checkpoint().items() if not n.startswith(("conv_out16", "conv_out32"))}
    loaded = load_network(save(tensors, "main.pth"))
    assert torch.equal(loaded.network.state_dict()["ffm.conv1.weight"], tensors["ffm.conv1.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("ffm.conv1.weight"), "1 tensors missing (ffm.conv1.weight)"),
        (lambda t: t.update(extra=torch.ones(1)), "1 tensors unknown (extra)"),
        (
            lambda t: t.update({"ffm.conv2.weight": torch.ones(256, 32, 1, 1)}),
            "1 tensors of another shape (ffm.conv2.weight)",
        ),
        (lambda t: t.pop("cp.resnet.conv1.weight"), "not BiSeNet face-parsing weights"),
        (
            lambda t: t.update({"cp.resnet.layer4.0.conv1.weight": torch.ones(256, 256, 3, 3)}),
            "channel counts 64 and 256 are no one width multiplier's",
        ),
    ],
)
def test_what_differs_is_named(
    save: Save, change: Callable[[dict[str, torch.Tensor]], object], message: str
) -> None:
    tensors = public_checkpoint()
    change(tensors)
    path = save(tensors, "changed.pth")
    with pytest.raises(WeightsError) as caught:
        load_network(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert message in text
    assert "give " in text or "multiplier" in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3, "best": 0.5}, "holds no state dict"),
        ([torch.ones(3)], "holds no state dict"),
        ({"fc.weight": torch.ones(10, 512)}, "it begins with fc.weight"),
        ({0: torch.ones(3)}, "holds no state dict"),
    ],
)
def test_other_files_saved_by_torch_are_refused(save: Save, content: object, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        load_network(save(content, "other.pth"))


@pytest.mark.parametrize(
    ("deep", "head"),
    [
        (torch.empty(51_200, 0, 1, 1), torch.empty(19, 25_600, 1, 1)),
        (torch.zeros(1).expand(51_200, 25_600, 3, 3), torch.empty(19, 25_600, 1, 1)),
        (torch.empty(512, 256, 3, 3), torch.zeros(1).expand(10**9, 256, 1, 1)),
        (torch.empty(512, 256, 3, 3), torch.empty(10**9, 0, 1, 1)),
    ],
)
def test_sizes_that_a_file_makes_up_take_no_memory(
    save: Save, deep: torch.Tensor, head: torch.Tensor
) -> None:
    """Tensors without numbers may have any shape, and one number may stand for many; a network of the first
    of these would have 94 GB in one layer."""
    stem = torch.empty(deep.shape[0] // 8, 0, 1, 1)
    names = ("cp.resnet.conv1.weight", "cp.resnet.layer4.0.conv1.weight", "conv_out.conv_out.weight")
    path = save(dict(zip(names, (stem, deep, head), strict=True)), "huge.pth")
    assert path.stat().st_size < 10**7
    with pytest.raises(WeightsError, match="or fewer numbers than that, not "):
        load_network(path)


@pytest.mark.parametrize("card", ['{"classes": 5}', '{"classes": [1]}', "[]", '{"other": 1}'])
def test_a_card_that_is_none_is_told(tmp_path: Path, card: str) -> None:
    path = tmp_path / "odd.safetensors"
    save_file({"a": torch.ones(1)}, path, metadata={"maskdrop": card})
    with pytest.raises(WeightsError, match="unreadable maskdrop header"):
        load_network(path)


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 100, b"not weights at all", b"\xff\xd8\xff\xe0" + b"j" * 500]
)
def test_files_that_are_no_weights_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="neither safetensors nor a checkpoint of plain tensors"):
        load_network(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="No such file"):
        load_network(tmp_path / "none.pth")
    with pytest.raises(WeightsError, match="Is a directory"):
        load_network(tmp_path)


class Hostile:
    """Runs a command wherever it is unpickled by a careless program."""

    def __init__(self, victim: Path) -> None:
        self._victim = victim

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch '{self._victim}'",)


@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_a_hostile_pickle_runs_nothing(tmp_path: Path, form: str) -> None:
    victim, path = tmp_path / "victim", tmp_path / "79999_iter.pth"
    content = {**public_checkpoint(), "hook": Hostile(victim)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    with pytest.raises(WeightsError, match="neither safetensors nor"):
        load_network(path)
    assert not victim.exists()


@pytest.mark.parametrize("width", [0.125, 0.25, 0.5, 0.75, 1.0])
def test_width_and_card_survive_saving(tmp_path: Path, width: float) -> None:
    network, path = tiny_network(width, classes=5), tmp_path / "w.safetensors"
    card = Card(width, ["a", "b", "c", "d", "e"], "here", "mine")
    save_weights(path, network, card)
    loaded = load_network(path)
    assert isinstance(loaded.network, BiSeNet)
    assert (loaded.network.width, loaded.network.classes) == (width, 5)
    assert loaded.card == card
    before, after = network.state_dict(), loaded.network.state_dict()
    for name in before:
        if not name.startswith(("conv_out16", "conv_out32")):
            assert torch.equal(before[name].half().float(), after[name].float()), name


def test_the_embedded_weights_are_small_and_complete() -> None:
    path = embedded_weights()
    assert path.stat().st_size <= 8_000_000
    loaded = load_network(path)
    assert loaded.network.classes == len(loaded.card.classes) == 19
    assert "non-commercial" in loaded.card.licence
    card = (Path(__file__).parent.parent / "docs" / "model-card.md").read_text()
    assert loaded.sha256[:12] in card, "the model card is of these weights"


def test_normalise_is_the_plain_formula() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (2, 3, 8, 8), dtype=np.uint8)
    mean = np.array([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1)
    deviation = np.array([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1)
    plain = (pixels / 255.0 - mean) / deviation
    np.testing.assert_allclose(normalise(torch.from_numpy(pixels)).numpy(), plain, rtol=0, atol=2e-6)


def pictures_of(faces: list[Path], count: int) -> NDArray[np.uint8]:
    """Real faces where the machine has them, else drawn ones; uint8 (count, 512, 512, 3)."""
    if not faces:
        return np.stack([np.asarray(draw_face(seed, 512, 512)) for seed in range(count)])
    images = [Image.open(path).convert("RGB") for path in faces[:count]]
    return np.stack([np.asarray(image.resize((512, 512), Image.Resampling.BILINEAR)) for image in images])


@pytest.mark.parametrize("channels_last", [True, False])
def test_labels_are_the_plain_argmax(faces: list[Path], channels_last: bool) -> None:
    """One at a time or in a batch, fp32 labels are the argmax over all logits, taken by numpy."""
    pictures = pictures_of(faces, 3)
    parser = load_parser(ModelSettings(precision="fp32", channels_last=channels_last), "cpu")
    network = load_network(embedded_weights()).network
    with torch.inference_mode():
        scores = network(normalise(torch.from_numpy(pictures).permute(0, 3, 1, 2))).numpy()
    labels = parser.parse(pictures)
    assert labels.dtype == np.uint8
    assert labels.shape == (3, 512, 512)
    best_two = np.sort(scores, axis=1)[:, -2:]
    # Memory formats sum in another order; only where two classes are equal but for that may labels differ.
    clear = best_two[:, 1] - best_two[:, 0] > 1e-3
    assert clear.mean() > 0.999
    np.testing.assert_array_equal(labels[clear], np.argmax(scores, axis=1)[clear])
    assert len(np.unique(labels)) > 3


def test_bf16_and_fp32_agree(faces: list[Path]) -> None:
    if not faces:
        pytest.skip("no photographs of faces here: set MASKDROP_FACES")
    pictures = pictures_of(faces[::60], 14)
    exact = load_parser(ModelSettings(precision="fp32"), "cpu").parse(pictures)
    quick = load_parser(ModelSettings(precision="bf16"), "cpu").parse(pictures)
    assert (exact == quick).mean() >= 0.99


def test_bf16_and_fp32_agree_on_a_gpu(faces: list[Path]) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    pictures = pictures_of(faces[::60], 14)
    exact = load_parser(ModelSettings(precision="fp32"), "cpu").parse(pictures)
    for precision in ("fp32", "bf16"):
        labels = load_parser(ModelSettings(precision=precision), "cuda").parse(pictures)
        assert (exact == labels).mean() >= 0.99


def test_fp32_on_a_gpu_is_what_it_says(tiny_weights: Path) -> None:
    """And not TF32. In a process of its own, for all of which it is set; without a GPU nothing else comes."""
    program = f"""
import contextlib, pathlib, torch
from maskdrop.config import ModelSettings
from maskdrop.model.parser import load_parser
for precision in ("bf16", "fp32"):
    with contextlib.suppress(AssertionError, RuntimeError):
        load_parser(ModelSettings(weights=pathlib.Path({str(tiny_weights)!r}), precision=precision), "cuda:0")
    print(torch.backends.cudnn.allow_tf32)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "True\nFalse\n", done.stderr


def test_auto_precision_follows_the_processor() -> None:
    flags = Path("/proc/cpuinfo").read_text().split()
    has_bf16 = any(flag in flags for flag in ("avx512_bf16", "amx_bf16", "bf16"))
    assert choose_precision("cpu") == ("bf16" if has_bf16 else "fp32")
    parser = load_parser(ModelSettings(), "cpu")
    assert parser.info.precision == choose_precision("cpu")
    assert isinstance(parser, FaceParser)


def test_the_model_card_gives_the_measured_figures() -> None:
    docs = Path(__file__).parent.parent / "docs"
    card = (docs / "model-card.md").read_text()
    figures = json.loads((docs / "embedded-weights.json").read_text())
    assert figures["weights_sha256"] == load_network(embedded_weights()).sha256
    assert figures["miou"] >= 0.5
    assert f"{figures['miou']:.3f}" in card
    for name, iou in figures["iou"].items():
        assert f"| {name.replace('_', ' ')} | {iou:.3f} |" in card
