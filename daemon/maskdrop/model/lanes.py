"""Pictures of a batch labelled side by side on a CPU's cores, each by threads of its own.

Where all threads share every layer, they wait at its end for the slowest of them, a hundred times
a picture; and a thread is slow whenever a decoder or another program has its core. A picture in a
lane of its own waits for none of this. Nor does the next batch: lanes that have nothing left of
one batch begin with the next while others are still at its last pictures.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from threading import Condition
from typing import Generic, TypeVar

import torch

Picture = TypeVar("Picture")
Labelled = TypeVar("Labelled")


@dataclass(frozen=True)
class InLanes(Generic[Labelled]):
    """Pictures that lanes work on, or are done with: see `maskdrop.model.under_way.UnderWay`.

    Attributes:
        futures: each picture's result, in the pictures' order.
    """

    futures: "list[Future[Labelled]]"

    @property
    def unfinished(self) -> list[int]:
        return [at for at, future in enumerate(self.futures) if not future.done()]

    def results(self) -> list[Labelled]:
        wait(self.futures)
        return [future.result() for future in self.futures]


class Lanes:
    """A fixed number of threads, shared out for each batch.

    Args:
        threads: how many may compute at the same time.
        most: how many may share a picture when it is the only one in the daemon; None: no more than
            ``threads``. The extra threads replace those of other workers, which are then idle.
    """

    def __init__(self, threads: int, most: int | None = None) -> None:
        self._threads, self._most = threads, max(threads, most or threads)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="lane") if threads > 1 else None
        self._wanted = 0
        self._changed = Condition()

    def begin(
        self, label: Callable[[Picture], Labelled], pictures: Sequence[Picture], company: int = 1
    ) -> InLanes[Labelled]:
        """Label pictures in as many lanes as there are pictures or threads, whichever are fewer, after those
        of earlier batches. A picture that all threads share is done when this returns.

        Each picture is computed by itself, so its labels are the same, bit for bit, whatever the batch and
        the threads. A lane that is done with one picture takes the next, however unevenly other programs
        use the cores.

        Args:
            company: pictures that all stages together work on. Each needs a core, so the more there are,
                the fewer threads share a picture: they would wait for each other.
        """
        lanes = min(self._threads, len(pictures))
        each = max(1, self._most // max(lanes, company))
        if self._pool is None or each >= self._threads:
            return self._done_by_all(each, label, pictures)

        def in_lane(picture: Picture) -> Labelled:
            torch.set_num_threads(each)  # for this thread only
            return label(picture)

        self._want(each * len(pictures))
        futures = [self._pool.submit(in_lane, picture) for picture in pictures]
        for future in futures:
            future.add_done_callback(lambda _: self._want(-each))
        return InLanes(futures)

    def _done_by_all(
        self, threads: int, label: Callable[[Picture], Labelled], pictures: Sequence[Picture]
    ) -> InLanes[Labelled]:
        """Label pictures one after the other, all before returning, up to the first that fails."""
        futures = []
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            for picture in pictures:
                future: Future[Labelled] = Future()
                futures.append(future)
                future.set_result(label(picture))
        except Exception as error:
            future.set_exception(error)
        finally:
            torch.set_num_threads(before)
        return InLanes(futures)

    def wait_for_room(self) -> None:
        """Wait until a thread has nothing to do: only the last pictures of a batch are then under way."""
        self._wait_until_wanted(self._threads - 1)

    def wait_for_rest(self) -> None:
        """Wait until no thread has anything to do."""
        self._wait_until_wanted(0)

    def _want(self, threads: int) -> None:
        with self._changed:
            self._wanted += threads
            if self._wanted < self._threads:
                self._changed.notify_all()

    def _wait_until_wanted(self, most: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._wanted <= most)
