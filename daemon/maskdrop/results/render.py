"""From pixels and labels to encoded results. Opens no files."""

import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from maskdrop.config import ImageOutput, Output, Settings
from maskdrop.decoding import BrokenPicture, decode, refuse_want_of_memory
from maskdrop.parts import Colour
from maskdrop.quiet import quiet_libraries
from maskdrop.results.mask import at_scale, cut_out, joined, over_black, overlay, scale_labels
from maskdrop.results.metadata import Carried, exif_for, profile_for, read_metadata
from maskdrop.results.names import Result, tail_of
from maskdrop.results.sidecar import sidecar
from maskdrop.ticket import Facts, Region, Save
from maskdrop.topology.slots import Slots

Pixels = NDArray[np.uint8]


class Renderer:
    """Makes the results of pictures in slots."""

    def __init__(self, settings: Settings, slots: Slots) -> None:
        self._settings, self._slots = settings, slots

    def render(self, task: Save, read: Callable[[], bytes], own: Pixels | None = None) -> list[Result]:
        """Every configured result.

        Args:
            read: returns the original's content; called only where it is needed.
            own: the picture's `own_labels`, if they are made already.

        Raises:
            BrokenPicture: the picture can't be decoded in full, or not be written as configured.
        """
        picture, carried = self._original(task, read)
        results, settings = [], self._settings
        for output, labels in self._labels_for(task, own):
            if output == "json":
                content = sidecar(task, labels, settings.model.classes)
            else:
                pixels = self._slots.pictures[task.slot] if output == "model" else picture
                content = self._encode(output, compose(output, pixels, labels, settings), task, carried)
            results.append(Result(tail_of(output, settings.save), content))
        return results

    def own_labels(self, task: Save) -> Pixels:
        """The picture's labels at its own size, uint8 (height, width)."""
        return self._labels(task, task.facts.width, task.facts.height)

    def _labels_for(self, task: Save, own: Pixels | None) -> Iterator[tuple[Output, Pixels]]:
        """Each configured output with labels at its size; those at the picture's own size are made once."""
        for output in self._settings.save.outputs:
            if output == "model":
                yield output, self._labels(task, self._slots.side, self._slots.side)
            else:
                if own is None:
                    own = self.own_labels(task)
                yield output, own

    def _original(self, task: Save, read: Callable[[], bytes]) -> tuple[Pixels, Carried]:
        """The picture's own pixels and metadata, read only if an output wants them. Pixels that the slot
        holds are not decoded again. Others are, since passing them on would take slots as large as the
        largest picture.
        """
        keeps_metadata = self._keeps_metadata(task.facts)
        is_in_slot = self._is_in_slot(task.facts)
        if not keeps_metadata and is_in_slot:
            return self._slots.pictures[task.slot], Carried()
        content = read()
        carried = read_metadata(content, self._settings.decode) if keeps_metadata else Carried()
        if is_in_slot:
            return self._slots.pictures[task.slot], carried
        return np.asarray(decode(content, self._settings.decode)), carried

    def reads_original(self, facts: Facts) -> bool:
        """Whether a picture's file has to be read again."""
        return self._keeps_metadata(facts) or not self._is_in_slot(facts)

    def shows_slot(self, facts: Facts) -> bool:
        """Whether the pixels in a picture's slot are needed, and not only its labels."""
        return "model" in self._settings.save.outputs or self._is_in_slot(facts)

    def _keeps_metadata(self, facts: Facts) -> bool:
        wanted = set(self._settings.save.outputs)
        return bool(self._settings.save.metadata and wanted - {"json", "labels"}) and facts.has_metadata

    def _is_in_slot(self, facts: Facts) -> bool:
        """Whether the slot holds the pixels of every result."""
        wanted, side = set(self._settings.save.outputs), self._slots.side
        return wanted <= {"model", "json"} or (facts.width, facts.height) == (side, side)

    def _labels(self, task: Save, width: int, height: int) -> Pixels:
        """The picture's labels at a size: of the whole picture, or of its faces, each in its place."""
        across, down = width / task.facts.width, height / task.facts.height
        regions = tuple(at_scale(region, across, down) for region in task.regions)
        return labels_at(self._slots, task.slot, regions, width, height)

    def _encode(self, output: ImageOutput, image: Image.Image, task: Save, carried: Carried) -> bytes:
        settings, form = self._settings.save, self._settings.save.format_of(output)
        metadata = settings.metadata if output != "labels" else ()
        traits: dict[str, Any] = {"exif": exif_for(carried, metadata, task.facts.sha256)}
        if profile := profile_for(carried, metadata):
            traits["icc_profile"] = profile
        buffer = io.BytesIO()
        with quiet_libraries():  # outside the try: its own errors are not the picture's
            try:
                image.save(buffer, form, quality=settings.quality, **traits)
            except (OSError, ValueError) as error:  # such as WebP's limit of 16,383 pixels a side
                refuse_want_of_memory(error)
                size = f"{image.width} x {image.height}"
                problem = f"{size} pixels can't be written as {form}: {error}; choose another save.format"
                raise BrokenPicture(type(error).__name__, problem) from error
        return buffer.getvalue()


def labels_at(slots: Slots, slot: int, regions: Sequence[Region], width: int, height: int) -> Pixels:
    """A slot's labels at a size, uint8 (height, width): of the whole picture or, if regions are given, of
    its faces in their places.

    Args:
        regions: of the faces, in pixels of the width x height that is wanted.
    """
    if not regions:
        return scale_labels(slots.labels[slot], width, height)
    return joined(slots.view_labels[slot][: len(regions)], regions, width, height)


def compose(output: ImageOutput, picture: Pixels, labels: Pixels, settings: Settings) -> Image.Image:
    """One result as an image.

    Args:
        picture: uint8 (height, width, 3), RGB.
        labels: uint8 (height, width).
    """
    wanted, palette = settings.kept_labels, settings.model.colours
    makers: dict[ImageOutput, Callable[[], Image.Image]] = {
        "face": lambda: over_black(picture, labels, wanted),
        "model": lambda: over_black(picture, labels, wanted),
        "cutout": lambda: cut_out(picture, labels, wanted),
        "labels": lambda: _with_palette(labels, palette),
        "overlay": lambda: Image.fromarray(overlay(picture, labels, palette)),
    }
    return makers[output]()


def _with_palette(labels: Pixels, palette: Sequence[Colour]) -> Image.Image:
    image = Image.fromarray(labels)
    image.putpalette([channel for colour in palette for channel in colour])
    return image
