"""What was tried for speed, one against the other: processor time of one thread per picture.

    python bench/tries.py [forward] [onnx] [compile] [decode] [encode] [--batches 1 4 16]

Times are of the thread's own processor clock, the least of several turns, so that other work on the machine
counts little. Labels are compared with those of the plain network in fp32. Prints Markdown tables.
"""

import argparse
import io
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import pictures
from maskdrop.config import IMAGENET_DEVIATION, IMAGENET_MEAN, ModelSettings
from maskdrop.model.bisenet import BiSeNet
from maskdrop.model.embedded import embedded_weights
from maskdrop.model.export import export_network
from maskdrop.model.folded import FoldedBiSeNet
from maskdrop.model.laid_out import in_format
from maskdrop.model.load import load_network
from maskdrop.model.normalise import normalise
from maskdrop.model.parser import load_parser
from maskdrop.model.quantised import can_quantise
from maskdrop.model.winners import labels_of
from measured import machine

Pixels = NDArray[np.uint8]
Label = Callable[[Pixels], Pixels]

BATCH, TURNS, EVERY = 4, 7, 70
LAST = torch.channels_last


def least_ms(act: Callable[[], object], turns: int = TURNS) -> float:
    """Milliseconds of this thread's processor time, the least of several turns after one to warm up."""
    act()
    spent = []
    for _ in range(turns):
        began = time.thread_time()
        act()
        spent.append(time.thread_time() - began)
    return min(spent) * 1000


def read(path: Path) -> Pixels:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((512, 512), Image.Resampling.BILINEAR))


def rows(title: str, variants: dict[str, Label], faces: Pixels, exact: Pixels, batch: int = BATCH) -> None:
    print(
        f"\n| {title} | ms a picture | of the first | labels as plain fp32 |\n|---|---|---|---|", flush=True
    )
    first = 0.0
    for name, label in variants.items():
        spent = least_ms(lambda label=label: label(faces[:batch])) / batch  # type: ignore[misc]
        first = first or spent
        parts = [label(faces[at : at + batch]) for at in range(0, len(faces) // batch * batch, batch)]
        same = float((np.concatenate(parts) == exact[: len(parts) * batch]).mean())
        print(f"| {name} | {spent:.1f} | {spent / first:.2f} | {same:.4%} |", flush=True)


def plain(network: torch.nn.Module, dtype: torch.dtype, memory_format: torch.memory_format) -> Label:
    network = in_format(network.to(dtype), memory_format)

    def label(faces: Pixels) -> Pixels:
        with torch.inference_mode():
            x = normalise(torch.from_numpy(faces).permute(0, 3, 1, 2)).to(dtype)
            scores = network(x.contiguous(memory_format=memory_format))
            labels: Pixels = scores.max(dim=1).indices.to(torch.uint8).numpy()
        return labels

    return label


def in_single_steps(dtype: torch.dtype) -> Label:
    """maskdrop's network as it runs where convolutions can't include the steps that follow them."""
    folded = FoldedBiSeNet(bisenet(), IMAGENET_MEAN, IMAGENET_DEVIATION).to(dtype)
    in_format(folded, LAST)

    def label(faces: Pixels) -> Pixels:
        with torch.inference_mode():
            scores = [folded(torch.from_numpy(faces[at : at + 1]), LAST) for at in range(len(faces))]
            return np.concatenate([labels_of(one, 512).numpy() for one in scores])

    return label


def coarse(faces: Pixels) -> Pixels:
    """The argmax at 1/8, scaled up by nearest neighbour."""
    parser = load_parser(ModelSettings(precision="fp32"), "cpu")
    assert parser._folded is not None
    with torch.inference_mode():
        scores = parser._folded(torch.from_numpy(faces), LAST)
        winners: Pixels = scores.max(dim=1).indices.to(torch.uint8).numpy()
    return winners.repeat(8, axis=1).repeat(8, axis=2)


def bisenet() -> BiSeNet:
    network = load_network(embedded_weights()).network
    assert isinstance(network, BiSeNet)
    return network


def forward(faces: Pixels, exact: Pixels) -> None:
    frozen = torch.jit.freeze(
        torch.jit.trace(bisenet().to(memory_format=LAST), torch.zeros(BATCH, 3, 512, 512))  # type: ignore
    )
    variants: dict[str, Label] = {
        "plain, fp32, contiguous": plain(bisenet(), torch.float32, torch.contiguous_format),
        "plain, fp32, channels last": plain(bisenet(), torch.float32, LAST),
        "plain, bf16, channels last": plain(bisenet(), torch.bfloat16, LAST),
        "traced and frozen, fp32": plain(frozen, torch.float32, LAST),
        "maskdrop, fp32, in single steps": in_single_steps(torch.float32),
        "maskdrop, fp32": load_parser(ModelSettings(precision="fp32"), "cpu").parse,
        "maskdrop, bf16, in single steps": in_single_steps(torch.bfloat16),
        "maskdrop, bf16": load_parser(ModelSettings(precision="bf16"), "cpu").parse,
    }
    if can_quantise():
        variants["maskdrop, int8"] = load_parser(ModelSettings(precision="int8"), "cpu").parse
    rows("forward", variants, faces, exact)
    same = float((coarse(faces) == exact).mean())
    print(f"\nArgmax at 1/8, scaled up by nearest neighbour: {same:.2%} of the labels are the same.")


def compiled(faces: Pixels, exact: Pixels, batches: Sequence[int]) -> None:
    """Compile for each batch size apart, as for a daemon that knows what comes; faces repeat where there are
    too few for a batch."""
    ours = load_parser(ModelSettings(precision="bf16"), "cpu").parse
    for batch in batches:
        torch.compiler.reset()
        network: Any = torch.compile(in_format(bisenet().to(torch.bfloat16), LAST))
        count = max(batch, len(faces))
        many, wanted = (
            np.resize(faces, (count, *faces.shape[1:])),
            np.resize(exact, (count, *exact.shape[1:])),
        )
        began = time.monotonic()
        label = plain(network, torch.bfloat16, LAST)
        label(many[:batch])
        print(f"\ntorch.compile took {time.monotonic() - began:.0f} s for the first batch, of {batch}")
        variants = {"maskdrop, bf16": ours, "torch.compile, bf16": label}
        rows(f"compiled, batches of {batch}", variants, many, wanted, batch)


def onnx(faces: Pixels, exact: Pixels) -> None:
    import onnxruntime
    from onnxruntime import quantization

    folder = Path(tempfile.mkdtemp(prefix="maskdrop-tries-"))
    path, small = folder / "n.onnx", folder / "n8.onnx"
    export_network(load_network(embedded_weights()), 512, path)

    def tensors(some: Pixels) -> NDArray[np.float32]:
        x = normalise(torch.from_numpy(some).permute(0, 3, 1, 2), IMAGENET_MEAN, IMAGENET_DEVIATION)
        array: NDArray[np.float32] = x.contiguous().numpy()
        return array

    class Samples(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = [tensors(faces[i : i + 1]) for i in range(0, len(faces), 2)]

        def get_next(self) -> dict[str, Any] | None:
            return {"picture": self._left.pop()} if self._left else None

    quantization.quantize_static(
        path, small, Samples(), quant_format=quantization.QuantFormat.QDQ, per_channel=True
    )

    def runner(model: Path) -> Label:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

        def label(some: Pixels) -> Pixels:
            scores = torch.from_numpy(session.run(None, {"picture": tensors(some)})[0])
            labels: Pixels = scores.max(dim=1).indices.to(torch.uint8).numpy()
            return labels

        return label

    variants = {
        "maskdrop, bf16": load_parser(ModelSettings(precision="bf16"), "cpu").parse,
        "maskdrop, fp32": load_parser(ModelSettings(precision="fp32"), "cpu").parse,
        "ONNX Runtime, fp32": runner(path),
        "ONNX Runtime, int8": runner(small),
    }
    rows("ONNX Runtime", variants, faces, exact)


def decode(faces: Pixels, exact: Pixels) -> None:
    """Ways to 512 x 512 from larger JPEGs."""
    label = load_parser(ModelSettings(precision="fp32"), "cpu").parse
    ways: dict[str, tuple[int, float | None]] = {
        "whole, bilinear": (0, None),
        "reducing_gap 2": (0, 2.0),
        "reducing_gap 3": (0, 3.0),
        "draft at twice the size": (1024, None),
        "draft at the size": (512, None),
    }
    print("\n| decoding | side | ms | labels as whole |\n|---|---|---|---|", flush=True)
    for side, count in ((2048, 8), (6000, 3)):
        contents = []
        for face in faces[:count]:
            buffer = io.BytesIO()
            Image.fromarray(face).resize((side, side), Image.Resampling.LANCZOS).save(
                buffer, "JPEG", quality=90
            )
            contents.append(buffer.getvalue())
        whole = np.zeros(0)
        for name, (draft, gap) in ways.items():

            def act(content: bytes, draft: int = draft, gap: float | None = gap) -> Pixels:
                with Image.open(io.BytesIO(content)) as image:
                    if draft:
                        image.draft("RGB", (draft, draft))
                    scaled = image.convert("RGB").resize(
                        (512, 512), Image.Resampling.BILINEAR, reducing_gap=gap
                    )
                return np.asarray(scaled)

            spent = least_ms(lambda act=act, content=contents[0]: act(content), 3)  # type: ignore[misc]
            labels = np.concatenate([label(act(content)[None]) for content in contents])
            whole = labels if not len(whole) else whole
            print(f"| {name} | {side} | {spent:.1f} | {(labels == whole).mean():.3%} |", flush=True)


def encode(faces: Pixels, exact: Pixels) -> None:
    """Masked faces in each format."""
    kept = np.isin(exact, [1, 2, 3, 10, 12, 13])
    images = [Image.fromarray(face * keep[:, :, None]) for face, keep in zip(faces, kept, strict=True)]
    ways: dict[str, dict[str, Any]] = {
        "JPEG 95 4:2:0 (default)": {"format": "JPEG", "quality": 95},
        "JPEG 95 4:4:4": {"format": "JPEG", "quality": 95, "subsampling": 0},
        "JPEG 95 optimised": {"format": "JPEG", "quality": 95, "optimize": True},
        "JPEG 85 4:2:0": {"format": "JPEG", "quality": 85},
        "JPEG 75 4:2:0": {"format": "JPEG", "quality": 75},
        **{f"PNG level {n}": {"format": "PNG", "compress_level": n} for n in (1, 3, 6, 9)},
        **{f"WebP 95 method {n}": {"format": "WEBP", "quality": 95, "method": n} for n in (0, 2, 4, 6)},
    }
    print("\n| encoder | ms | KiB |\n|---|---|---|", flush=True)
    for name, options in ways.items():
        sizes: list[int] = []

        def act(options: dict[str, Any] = options, sizes: list[int] = sizes) -> None:
            for image in images:
                buffer = io.BytesIO()
                image.save(buffer, **options)
                sizes.append(buffer.tell())

        spent = least_ms(act, 3) / len(images)
        print(f"| {name} | {spent:.2f} | {np.mean(sizes) / 1024:.1f} |", flush=True)


TRIES = ("forward", "onnx", "compile", "decode", "encode")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("tries", nargs="*", help=f"of {', '.join(TRIES)}; all where none is named")
    batches = "pictures in each batch of compile; those that occur are of 1 to 16"
    parser.add_argument("--batches", type=int, nargs="+", default=[BATCH], help=batches)
    options = parser.parse_args()
    if unknown := set(options.tries) - set(TRIES):
        parser.error(f"{', '.join(sorted(unknown))}: none of {', '.join(TRIES)}")
    torch.set_num_threads(1)
    faces = np.stack([read(path) for path in pictures.faces()[::EVERY]])
    label = plain(bisenet(), torch.float32, torch.contiguous_format)
    exact = np.concatenate([label(faces[at : at + 1]) for at in range(len(faces))])
    print(machine())
    ways: dict[str, Callable[[Pixels, Pixels], None]] = {
        "forward": forward,
        "onnx": onnx,
        "compile": lambda faces, exact: compiled(faces, exact, options.batches),
        "decode": decode,
        "encode": encode,
    }
    for name in options.tries or TRIES:
        ways[name](faces, exact)


if __name__ == "__main__":
    main()
