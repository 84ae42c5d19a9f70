"""Pictures of a batch labelled side by side on a CPU's cores, each by threads of its own.

Where all threads share every layer, they wait for the slowest of them at its end, a hundred times
a picture; and that one is slow whenever a decoder or anybody else has its core. A picture in a
lane of its own waits for nobody. Nor does the next batch: lanes that have nothing left of one begin
with the next, while others are at its last pictures.
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
    """Pictures that lanes have, or are through with: see `maskdrop.model.under_way.UnderWay`.

    Attributes:
        futures: what each is to give, in the pictures' order.
    """

    futures: "list[Future[Labelled]]"

    @property
    def unfinished(self) -> list[int]:
        return [at for at, future in enumerate(self.futures) if not future.done()]

    def results(self) -> list[Labelled]:
        wait(self.futures)
        return [future.result() for future in self.futures]


class Lanes:
    """A fixed number of threads, dealt out anew for each batch.

    Args:
        threads: all that may compute at the same time.
        most: as many as may share a picture that is the only one of all; None: no more than ``threads``.
            The others are those of other workers, which have nothing to do then.
    """

    def __init__(self, threads: int, most: int | None = None) -> None:
        self._threads, self._most = threads, max(threads, most or threads)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="lane") if threads > 1 else None
        self._wanted = 0
        self._changed = Condition()

    def begin(
        self, label: Callable[[Picture], Labelled], pictures: Sequence[Picture], company: int = 1
    ) -> InLanes[Labelled]:
        """Have pictures labelled in as many lanes as there are pictures or threads, after those of earlier
        batches. One that all threads share is done when this returns.

        Each picture is computed by itself, whatever the batch and the threads: so its labels are the
        same, bit for bit. A lane that is done with one takes the next, however unevenly others have used
        the cores.

        Args:
            company: pictures that are worked on altogether, with those of other stages. Each has use for
                a core: threads that share a picture would wait for each other there.
        """
        lanes = min(self._threads, len(pictures))
        each = max(1, self._most // max(lanes, company))
        if self._pool is None or each >= self._threads:
            return self._done_by_all(each, label, pictures)

        def in_lane(picture: Picture) -> Labelled:
            torch.set_num_threads(each)  # of this thread alone
            return label(picture)

        self._want(each * len(pictures))
        futures = [self._pool.submit(in_lane, picture) for picture in pictures]
        for future in futures:
            future.add_done_callback(lambda _: self._want(-each))
        return InLanes(futures)

    def _done_by_all(
        self, threads: int, label: Callable[[Picture], Labelled], pictures: Sequence[Picture]
    ) -> InLanes[Labelled]:
        """One after the other, before this returns, up to the first that can't be labelled."""
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
        """Wait until a thread has nothing to do: what is under way are then the last pictures of a batch."""
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
