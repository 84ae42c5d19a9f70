"""Checks whether a network works here, on a picture whose labels are known."""

from dataclasses import dataclass

import numpy as np

from maskdrop.config import ModelSettings
from maskdrop.model.known import LEAST_AGREEMENT, known_labels, known_picture
from maskdrop.model.parser import ModelInfo, load_parser
from maskdrop.parts import PART_NAMES

LEAST_LIKENESS = 0.5
"""Share of pixels that must have the known labels, where the classes are the nineteen parts.
Another good network differs at borders, in hair and in cloth; one whose colours or classes are
in another order agrees on little but background."""


@dataclass(frozen=True)
class Verdict:
    """What a check found.

    Attributes:
        agreement: share of pixels with the same label in fp32 and in the used precision.
        likeness: share of pixels with the known labels; None where the classes are not the nineteen parts.
        shares: for each class that occurs, its share of the known picture's pixels.
    """

    info: ModelInfo
    agreement: float
    likeness: float | None
    shares: dict[str, float]

    @property
    def problem(self) -> str | None:
        """What is wrong and what to do, or None."""
        if self.likeness is not None and self.likeness < LEAST_LIKENESS:
            share = f"{self.likeness:.1%} of the known picture's labels are right"
            return f"only {share}; see model.mean, model.deviation and the order of model.classes"
        if self.agreement < LEAST_AGREEMENT:
            share = f"{self.agreement:.1%} of the labels are the same in {self.info.precision} as in fp32"
            return f"only {share}; set model.precision = fp32"
        return None


def check_model(settings: ModelSettings, device: str, threads: int) -> Verdict:
    """Load a network as the daemon does, and run it on the known picture.

    Raises:
        WeightsError: the network can't be used; the message says why and what to do.
    """
    parser = load_parser(settings, device, threads)
    parser.probe()
    picture = known_picture(settings.input_size)[np.newaxis]
    labels = parser.parse(picture)[0]
    exact = labels
    if parser.info.precision != "fp32":
        exact = load_parser(settings.model_copy(update={"precision": "fp32"}), device, threads).parse(
            picture
        )[0]
    likeness = None
    if settings.classes == PART_NAMES:
        likeness = float((labels == known_labels(settings.input_size)).mean())
    counts = np.bincount(labels.ravel(), minlength=len(settings.classes))
    shares = {name: float(n / labels.size) for name, n in zip(settings.classes, counts, strict=True) if n}
    return Verdict(parser.info, float((labels == exact).mean()), likeness, shares)
