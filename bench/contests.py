"""Contestants and how they are compared: each is a process of its own, on the same pictures and cores."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

HERE = Path(__file__).parent

Figures = dict[str, Any]

ALIKE = 32
"""Two contestants' results differ at a pixel if a channel differs by more than this, of 255; JPEG alone makes
less. If no channel of either is above it, both are as black as what is masked away."""


@dataclass(frozen=True)
class Contestant:
    """A program of this folder; PICTURES and RESULTS in its arguments are replaced by folders."""

    name: str
    arguments: tuple[str, ...]


PLAIN = Contestant("plain loop", ("plain.py", "PICTURES", "RESULTS"))
ARTICLE = Contestant("article", ("article.py", "PICTURES", "RESULTS"))
ARTICLE_ONE = Contestant("article, 1 thread each", ("article.py", "PICTURES", "RESULTS", "--threads", "1"))
MASKDROP = Contestant("maskdrop", ("maskdrop_daemon.py", "PICTURES", "RESULTS"))
DEFAULTS = Contestant(
    "maskdrop, own outputs", ("maskdrop_daemon.py", "PICTURES", "RESULTS", "--default-outputs")
)
FP32 = Contestant("maskdrop, fp32", (*MASKDROP.arguments, "--set", 'model.precision="fp32"'))
INT8 = Contestant(
    "maskdrop, int8",
    (*MASKDROP.arguments, "--set", 'model.precision="int8"', "--set", 'model.device="cpu"'),
)
LIMITS = Contestant("limits", ("limits.py", "PICTURES"))
FP32_LIMITS = Contestant("limits, fp32", (*LIMITS.arguments, "--precision", "fp32"))
ALL_LIMITS = (LIMITS.name, FP32_LIMITS.name)

SAME_OUTPUTS = (ARTICLE, ARTICLE_ONE, MASKDROP, FP32, INT8)
"""Contestants whose results have the plain loop's size and quality."""

ALL = (PLAIN, ARTICLE, ARTICLE_ONE, MASKDROP, FP32, DEFAULTS, LIMITS, FP32_LIMITS)


def configured(**changes: object) -> Contestant:
    """maskdrop with other settings: ``workers__save=2`` is ``workers.save``."""
    options = [f"{name.replace('__', '.')}={value}" for name, value in changes.items()]
    arguments = [word for option in options for word in ("--set", option)]
    return Contestant(", ".join(options), (*MASKDROP.arguments, *arguments))


def run(contestant: Contestant, pictures: Path, results: Path) -> Figures:
    """One run's figures.

    Raises:
        SystemExit: the contestant failed; its messages are on standard error.
    """
    folders = {"PICTURES": str(pictures), "RESULTS": str(results)}
    program, *words = (folders.get(word, word) for word in contestant.arguments)
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, str(HERE / program), *words], stdout=subprocess.PIPE, text=True, env=environment
    )
    if done.returncode:
        sys.exit(f"{contestant.name} failed on {pictures}")
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    if "pictures" in figures:
        figures["per_second"] = figures["pictures"] / figures["seconds"]
    return figures


def interleaved(
    contestants: Iterable[Contestant], pictures: Path, results: Path, repeats: int
) -> dict[str, list[Figures]]:
    """Run every contestant in turn, ``repeats`` times, so that other load on the machine affects all."""
    found: dict[str, list[Figures]] = {}
    for turn in range(repeats):
        for contestant in contestants:
            figures = run(contestant, pictures, results_of(contestant.name, results))
            found.setdefault(contestant.name, []).append(figures)
            rate = figures.get("per_second", figures.get("slowest"))
            print(
                f"  {turn + 1}/{repeats} {contestant.name}: {rate:.2f} a second", file=sys.stderr, flush=True
            )
    return found


def in_fresh_folders(
    contestants: Sequence[Contestant], pictures: Path, results: Path, repeats: int
) -> dict[str, list[Figures]]:
    """The same with each turn's results in a folder of its own (`turn_of`), free of earlier results."""
    found: dict[str, list[Figures]] = {}
    for turn in range(repeats):
        for name, runs in interleaved(contestants, pictures, turn_of(results, turn), 1).items():
            found.setdefault(name, []).extend(runs)
    return found


def turn_of(results: Path, turn: int) -> Path:
    return results / f"turn-{turn}"


def results_of(name: str, results: Path) -> Path:
    """Where a contestant's results are."""
    return results / name.replace(" ", "-")


def middle(runs: list[Figures], *path: str) -> float:
    """The median of a figure over runs, reached by keys."""
    return float(median(_reach(figures, path) for figures in runs))


def ratio(runs: list[Figures], others: list[Figures], key: str = "per_second", other: str = "") -> float:
    """The median of two contestants' ratios, turn by turn."""
    pairs = zip(runs, others, strict=True)
    return float(median(mine[key] / theirs[other or key] for mine, theirs in pairs))


def alike(results: Path, others: Path, pictures: Path) -> dict[str, float]:
    """Share of pixels that are the same in two folders of results, apart from what JPEG does: of "all", and
    of the "kept" ones, which are not black in both.

    Raises:
        SystemExit: a picture's result is missing.
    """
    same = kept = same_kept = every = 0
    for picture in sorted(pictures.iterdir()):
        paths = [folder / picture.name for folder in (results, others)]
        if missing := [path for path in paths if not path.exists()]:
            sys.exit(f"{missing[0]} is missing")
        mine, theirs = (np.asarray(Image.open(path)).astype(int) for path in paths)
        fits = np.abs(mine - theirs).max(axis=2) <= ALIKE
        is_kept = np.maximum(mine, theirs).max(axis=2) > ALIKE
        same, every = same + int(fits.sum()), every + fits.size
        same_kept, kept = same_kept + int((fits & is_kept).sum()), kept + int(is_kept.sum())
    return {"all": same / every, "kept": same_kept / kept}


def _reach(figures: Figures, path: tuple[str, ...]) -> float:
    value: Any = figures
    for key in path:
        value = value[key]
    return float(value)


def doublings(most: int) -> Iterator[int]:
    """1, 2, 4, … and finally ``most``."""
    number = 1
    while number < most:
        yield number
        number *= 2
    yield most
