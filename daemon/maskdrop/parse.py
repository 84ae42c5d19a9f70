"""Faces parsed from Python: the daemon's own stages, one picture after the other, without a daemon."""

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFile

from maskdrop.colours import fit_colour_key, to_rgb, upright
from maskdrop.config import ImageOutput, Settings
from maskdrop.config_file import load_settings
from maskdrop.decoding import BrokenPicture, decode
from maskdrop.devices import find_devices
from maskdrop.infer import Batch, FirstLook
from maskdrop.locate import find_faces
from maskdrop.machine.cores import usable_cores
from maskdrop.model.parser import ModelInfo, load_parser
from maskdrop.preprocess import put_views, put_whole
from maskdrop.results.mask import kept
from maskdrop.results.render import compose, labels_at
from maskdrop.ticket import Infer, Region
from maskdrop.topology.slots import OwnSlots

Pixels = NDArray[np.uint8]
Picture = str | os.PathLike[str] | Image.Image | Pixels
"""What can be parsed: a file's path, a PIL image of any mode, or uint8 (height, width), (height, width, 3)
RGB or (height, width, 4) RGBA."""

_UNUSED = Path("/nonexistent")
"""Settings must name an inbox and an outbox; nothing here touches them."""

_LIMIT = Lock()
"""Whoever holds it may change ``PIL.Image.MAX_IMAGE_PIXELS``."""


@dataclass(frozen=True)
class Parsed:
    """A picture and the label of each of its pixels.

    Attributes:
        picture: uint8 (height, width, 3), upright, sRGB.
        labels: uint8 (height, width): numbers of the classes.
        classes: names of the classes, in the order of their numbers.
    """

    picture: Pixels
    labels: Pixels
    classes: tuple[str, ...]
    _settings: Settings = field(repr=False)

    def mask(self, *names: str) -> NDArray[np.bool_]:
        """Where these classes are or, without names, those that are kept: bool (height, width).

        Raises:
            ValueError: no class has such a name.
        """
        if not names:
            return kept(self.labels, self._settings.kept_labels)
        for name in names:
            if name not in self.classes:
                raise ValueError(f"{name!r} is no class; choose from {', '.join(self.classes)}")
        return kept(self.labels, [self.classes.index(name) for name in names])

    def masks(self) -> dict[str, NDArray[np.bool_]]:
        """A mask of each class that is in the picture, by name: bool (height, width) each."""
        return {self.classes[number]: self.labels == number for number in np.unique(self.labels)}

    def image(self, output: ImageOutput = "face") -> Image.Image:
        """What the daemon writes at the picture's size: ``face``, ``cutout``, ``labels`` or ``overlay``."""
        return compose(output, self.picture, self.labels, self._settings)


class Parser:
    """A network that is loaded once and labels any number of pictures, one at a time.

    Threads may share it; they wait for each other.
    """

    def __init__(
        self,
        *,
        config: str | os.PathLike[str] | None = None,
        weights: str | os.PathLike[str] | None = None,
        device: str | None = None,
        threads: int | None = None,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Load the network. Without arguments: embedded weights, a GPU where there is one, all cores.

        Args:
            config: a configuration file, as the daemon reads it.
            weights: in place of the embedded ones; see docs/models.md.
            device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
            threads: how many threads of the whole process compute on a CPU; None for one per core.
            settings: override the file's, by section and key, such as ``{"save": {"keep": ["hair"]}}``.

        Raises:
            ConfigurationError: a setting can't be used.
            WeightsError: the weights can't be used.
        """
        given = {section: dict(values) for section, values in (settings or {}).items()}
        for key, value in (("weights", None if weights is None else Path(weights)), ("device", device)):
            if value is not None:
                given.setdefault("model", {})[key] = value
        given["folders"] = {"inbox": _UNUSED / "inbox", "outbox": _UNUSED / "outbox"}
        self.settings = load_settings(None if config is None else Path(config), given)
        cores = usable_cores() if threads is None else threads
        where = find_devices(self.settings.model.device)[0]
        if where == "cpu":
            torch.set_num_threads(cores)
        self._parser = load_parser(self.settings.model, where, cores, max_batch=1 + self.settings.views)
        self._parser.probe()
        self._slots = OwnSlots.for_one(self.settings.model.input_size, self.settings.views)
        self._look = FirstLook(self.settings)
        self._lock = Lock()

    @property
    def info(self) -> ModelInfo:
        """The weights' file and SHA-256, device and precision."""
        return self._parser.info

    def parse(self, image: Picture) -> Parsed:
        """Label a picture; faces that are small in it are looked at again, as configured.

        Raises:
            BrokenPicture: the file, image or array can't become a picture.
            OSError: the file can't be read.
        """
        with self._lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's; what is too large is refused below
            picture = self._picture(image)
            put_whole(picture, self._slots, 0)
            small, _ = Batch([Infer(0, 0)], self._parser, self._slots, self._look).labelled()
            regions: tuple[Region, ...] = ()
            if small:
                faces = find_faces(self._slots.labels[0], self.settings.model.classes)
                regions = put_views(picture, faces, self._slots, 0)
                if regions:
                    Batch([Infer(0, 0, len(regions))], self._parser, self._slots).labelled()
            labels = np.array(labels_at(self._slots, 0, regions, picture.width, picture.height))
        return Parsed(np.array(picture), labels, self.settings.model.classes, self.settings)

    def _picture(self, image: Picture) -> Image.Image:
        if isinstance(image, str | os.PathLike):
            path, most = Path(image), self.settings.decode.max_bytes
            if path.stat().st_size > most:
                raise BrokenPicture("TooManyBytes", f"{path}: larger than decode.max_bytes = {most}")
            content = path.read_bytes()
            with _pixels_allowed(self.settings.decode.max_pixels):
                return decode(content, self.settings.decode, is_guest=True)
        if isinstance(image, Image.Image):
            return _as_a_file_s(image)
        right = image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (3, 4))
        if image.dtype != np.uint8 or not right or 0 in image.shape:
            problem = f"an array of {image.dtype} and shape {image.shape} is no picture"
            raise BrokenPicture("BadArray", f"{problem}; give uint8 (height, width, 3), RGB")
        return to_rgb(Image.fromarray(image))


def _as_a_file_s(image: Image.Image) -> Image.Image:
    """What `decode` makes of the file that an image was opened from. The image stays as it is, except that it
    is loaded. That has to come first: it turns some formats upright."""
    before = dict(image.info)
    if isinstance(image, ImageFile.ImageFile):
        fit_colour_key(image)
    try:
        image.load()
        return to_rgb(upright(image))
    finally:
        image.info = before


@contextmanager
def _pixels_allowed(most: int) -> Iterator[None]:
    """Let Pillow open pictures of up to ``most`` pixels, even if it takes that many for an attack: more than
    twice its limit (``PIL.Image._decompression_bomb_check``). The limit is the whole process's, so only one
    thread at a time raises it.
    """
    with ExitStack() as held:
        held.enter_context(_LIMIT)
        before = Image.MAX_IMAGE_PIXELS
        if before is None or most <= 2 * before:
            held.close()
            yield
            return
        Image.MAX_IMAGE_PIXELS = most
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before
