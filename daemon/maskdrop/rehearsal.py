"""What an inference worker does with a known portrait before it is given pictures."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from maskdrop.cost import cost_of
from maskdrop.model.known import known_picture
from maskdrop.model.memory import free_memory, is_want_of_memory
from maskdrop.model.parser import Certainty, FaceParser, Pixels
from maskdrop.model.streams import STREAMS
from maskdrop.ticket import Cost

MEASURED_BATCHES = 2
"""Batches of which the faster one gives a picture's cost; no more, since the start waits for them."""

Answer = TypeVar("Answer")


class Rehearsal:
    """Batches of the portrait, in memory of their own, labelled and looked at as pictures will be.

    Args:
        side: of the network's pictures, in pixels.
        look: looks at a picture's labels, uint8 (side, side).
        judge: whether any output says how sure the network is.
    """

    def __init__(self, parser: FaceParser, side: int, look: Callable[[Pixels], object], judge: bool) -> None:
        self._parser, self._side, self._look, self._judge = parser, side, look, judge
        self._on_cpu = parser.info.device == "cpu"

    def warm_up(self, max_batch: int) -> None:
        """Make a GPU load and plan what batches of all sizes need, in each of its streams, so that no picture
        waits for that. Batches for which it lacks memory will be done in halves, and those are warm. The
        largest comes first: what is planned for it may do for the others, as TensorRT's engine does.
        """
        for size in reversed(self._parser.sizes_up_to(max_batch)):
            self._with_memory(partial(self._label_once, size))

    def _label_once(self, size: int) -> None:
        self._batches(size, STREAMS)()

    def measure(self, threads: int, max_batch: int) -> Cost | None:
        """What a picture costs this stage when the whole device is at work; None if there is too little
        memory to find out.

        Args:
            threads: how many threads of a CPU compute at the same time.
            max_batch: pictures in a batch on a GPU.
        """
        size, times = (threads, 1) if self._on_cpu else (max_batch, STREAMS)
        return self._with_memory(
            lambda: cost_of(self._batches(size, times), pictures=size * times, turns=MEASURED_BATCHES)
        )

    def _batches(self, size: int, times: int) -> Callable[[], None]:
        """A function that labels a batch ``times`` times, and begins all before it waits for any.

        Raises:
            RuntimeError: there is too little memory for the batch.
        """
        pictures = self._parser.room(size, self._side, self._side, 3)
        labels = list(self._parser.room(size, self._side, self._side))
        pictures[:] = known_picture(self._side)

        def finish(at: int, _: Certainty | None) -> None:
            self._look(labels[at])

        def label() -> None:
            begun = [
                self._parser.begin(list(pictures), labels, finish, judge=self._judge) for _ in range(times)
            ]
            for batch in begun:
                batch.results()

        return label

    def _with_memory(self, work: Callable[[], Answer]) -> Answer | None:
        """What the work returns; None if there was too little memory for it."""
        try:
            return work()
        except (RuntimeError, MemoryError) as error:
            if not is_want_of_memory(error):
                raise
        self._parser.wait_for_rest()
        free_memory()
        return None
