"""Second stage on a cluster: batches through the network, in an actor that keeps it loaded.

Torch is imported only with the network, so an actor that never labels anything costs next to nothing.
"""

import socket
import warnings
from dataclasses import replace
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from maskdrop.cluster.attempts import CannotLabel, attempted, ended_after
from maskdrop.cluster.cargo import Piece, Pixels, packed, stacked, unpacked
from maskdrop.cluster.job import Job
from maskdrop.config_file import fault
from maskdrop.lasting import lasting_imports
from maskdrop.results.render import Renderer
from maskdrop.ticket import Infer, Inferred, Report, Stage
from maskdrop.topology.slots import OwnSlots

if TYPE_CHECKING:
    from maskdrop.infer import FirstLook
    from maskdrop.model.parser import FaceParser


class Labeller:
    """An inference actor: labels whole pictures, or on a second look the views of their faces."""

    def __init__(self, job: Job, device: str, threads: int, max_batch: int, looks_again: bool) -> None:
        """Prepare. An actor for second looks, which are rare, loads the network when the first one comes.

        Args:
            device: ``cpu``, or ``cuda`` for the GPU that Ray has given to this process.
        """
        self._job, self._looks_again, self._max_batch = job, looks_again, max_batch
        self._device, self._threads = device, threads
        settings = job.settings
        self._side = settings.model.input_size
        self._renderer = Renderer(settings, OwnSlots(self._side))
        self._look: FirstLook | None = None
        self._judges = settings.save.wants_certainty
        self._parser: FaceParser | str | None = None if looks_again else self._load()

    def __call__(self, table: pa.Table) -> pa.Table:
        """Label a block.

        Raises:
            CannotLabel: the network can't be used.
        """
        pieces = unpacked(table)
        waits = [piece for piece in pieces if piece.pixels is not None and piece.work.is_on_its_way]
        attempts, most = self._job.attempts, self._job.most_attempts
        labelled = {
            piece.work.path: piece for piece in attempted(waits, Stage.INFER, attempts, most, self._label_all)
        }
        return packed(labelled.get(piece.work.path, piece) for piece in pieces)

    def _load(self) -> "FaceParser | str":
        warnings.simplefilter("ignore")  # such as about read-only pictures, which nobody writes to
        with lasting_imports():
            import torch

            from maskdrop.infer import FirstLook
            from maskdrop.model.errors import WeightsError
            from maskdrop.model.parser import load_parser
            from maskdrop.model.precision import is_usable
            from maskdrop.rehearsal import Rehearsal

        self._look = None if self._looks_again else FirstLook(self._job.settings)
        torch.set_num_threads(self._threads)
        if not is_usable(self._device):
            problem = f"Ray counts a GPU on {socket.gethostname()}, and PyTorch can't use it"
            remedy = "mend its driver, install PyTorch for CUDA there, or set it to cpu"
            return str(fault("model.device", self._job.settings.model.device, problem, remedy))
        device = f"{self._device}:0" if self._device == "cuda" else self._device
        try:
            parser = load_parser(self._job.settings.model, device, self._threads, max_batch=self._max_batch)
            if self._job.weights_sha256 not in ("", parser.info.sha256):
                problem = f"{socket.gethostname()} has another content there than the batch began with"
                weights = self._job.settings.model.weights
                return str(
                    fault("model.weights", weights, problem, "have one file, and one maskdrop, on all nodes")
                )
            parser.probe()
            if device != "cpu":  # the first batches are slow there, which must not count against a picture
                look = self._look.finds_small if self._look else _dont_look
                Rehearsal(parser, self._side, look, self._judges).warm_up(self._max_batch)
        except WeightsError as error:
            return str(error)
        return parser

    def _label_all(self, pieces: list[Piece]) -> list[Piece]:
        if self._parser is None:
            self._parser = self._load()
        if isinstance(self._parser, str):
            raise CannotLabel(self._parser)
        batches = ceil(len(pieces) / self._max_batch)  # as the parser divides them, if it does
        with ended_after(batches * self._job.longest):
            return self._label(pieces, self._parser)

    def _label(self, pieces: list[Piece], parser: "FaceParser") -> list[Piece]:
        from maskdrop.infer import compute

        pictures = [piece.pixels for piece in pieces if piece.pixels is not None]
        counts = [len(views) if self._looks_again else 0 for views in pictures]
        place = self._places_of_views if self._looks_again else self._places_of
        places = place(pictures, parser)
        told = _Told()
        tasks = [Infer(slot, slot, views) for slot, views in enumerate(counts)]
        compute(tasks, parser, places, told, self._look, self._judges)
        return [piece for report in told.reports for piece in self._labelled(pieces, report, places)]

    def _places_of(self, pictures: list[Pixels], parser: "FaceParser") -> OwnSlots:
        pixels, labels = stacked(pictures), parser.room(len(pictures), self._side, self._side)
        if self._device != "cpu":  # a GPU's copies out of Arrow's memory, which isn't pinned, would block
            arrived, pixels = pixels, parser.room(*pixels.shape)
            np.copyto(pixels, arrived)
        return OwnSlots(self._side, pixels, labels)

    def _places_of_views(self, pictures: list[Pixels], parser: "FaceParser") -> OwnSlots:
        shape = (len(pictures), max(map(len, pictures)), self._side, self._side)
        places = OwnSlots(
            self._side,
            np.empty((0, self._side, self._side, 3), np.uint8),
            np.empty((0, self._side, self._side), np.uint8),
            parser.room(*shape, 3),
            parser.room(*shape),
        )
        for slot, views in enumerate(pictures):
            np.copyto(places.view_pictures[slot, : len(views)], views)
        return places

    def _labelled(self, pieces: list[Piece], report: Inferred, places: OwnSlots) -> list[Piece]:
        done = []
        for position, slot in enumerate(report.numbers):
            piece, stage = pieces[slot], "look" if self._looks_again else Stage.INFER.value
            work = replace(
                piece.work,
                is_small=slot in report.small,
                judged=report.judged[position] if report.judged else None,
                ms={**piece.work.ms, stage: report.milliseconds},
            )
            assert work.facts is not None
            views = len(work.regions)
            labels = places.view_labels[slot, :views] if views else places.labels[slot]
            keeps = not self._looks_again and self._renderer.shows_slot(work.facts)
            done.append(Piece(work, piece.pixels if keeps else None, labels, piece.content))
        return done


def _dont_look(labels: Pixels) -> None:
    """Stands in for a first look."""


class _Told:
    """Collects the reports about a batch: several, if the batch had to be halved for want of memory."""

    def __init__(self) -> None:
        self.reports: list[Inferred] = []

    def report(self, report: Report, /) -> None:
        if isinstance(report, Inferred):
            self.reports.append(report)
