"""Pictures of a batch labelled side by side on a CPU's cores, each by threads of its own.

Where all threads share every layer, they wait for the slowest of them at its end, a hundred times
a picture; and that one is slow whenever a decoder or anybody else has its core. A picture in a
lane of its own waits for nobody.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import torch

Picture = TypeVar("Picture")
Labelled = TypeVar("Labelled")


class Lanes:
    """A fixed number of threads, dealt out anew for each batch.

    Args:
        threads: all that may compute at the same time.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="lane") if threads > 1 else None

    def run(
        self, label: Callable[[Picture], Labelled], pictures: Sequence[Picture], company: int = 1
    ) -> list[Labelled]:
        """Label pictures in as many lanes as there are pictures or threads.

        Each picture is computed by itself, whatever the batch and the threads: so its labels are the
        same, bit for bit. A lane that is done with one takes the next: at the end of a batch, lanes wait
        for the slowest for less than a picture's time, however unevenly others have used their cores.

        Args:
            company: pictures that are worked on altogether, with those of other stages. Each has use for
                a core: threads that share a picture would wait for each other there.

        Returns:
            What ``label`` gave for each, in the pictures' order.

        Raises:
            Exception: the first of those that ``label`` raised, once no lane is at work any more.
        """
        lanes = min(self._threads, len(pictures))
        each = max(1, self._threads // max(lanes, company))
        if self._pool is None or each == self._threads:
            return [label(picture) for picture in pictures]

        def in_lane(picture: Picture) -> Labelled:
            torch.set_num_threads(each)  # of this thread alone
            return label(picture)

        futures = [self._pool.submit(in_lane, picture) for picture in pictures]
        wait(futures)
        return [future.result() for future in futures]
