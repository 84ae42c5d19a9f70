"""Pictures of a batch labelled side by side on a CPU's cores, each by threads of its own.

Where all threads share every layer, they wait for the slowest of them at its end, a hundred times
a picture; and that one is slow whenever a decoder or anybody else has its core. A picture in a
lane of its own waits for nobody.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np
import torch
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


class Lanes:
    """A fixed number of threads, dealt out anew for each batch.

    Args:
        threads: all that may compute at the same time.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="lane") if threads > 1 else None

    def run(self, label: Callable[[Pixels], Pixels], pictures: Pixels) -> Pixels:
        """Label pictures, uint8 (batch, …), in as many lanes as there are pictures or threads.

        A lane that is done with a picture takes the next one: at the end of a batch, lanes wait for
        the slowest for less than a picture's time, however unevenly others have used their cores.

        Returns:
            What ``label`` gave for all parts of the batch, in the pictures' order.

        Raises:
            Exception: the first of those that ``label`` raised, once no lane is at work any more.
        """
        lanes = min(self._threads, len(pictures))
        if self._pool is None or lanes < 2:
            return label(pictures)
        each = self._threads // lanes

        def in_lane(part: Pixels) -> Pixels:
            torch.set_num_threads(each)  # of this thread alone
            return label(part)

        singles = (pictures[index : index + 1] for index in range(len(pictures)))
        futures = [self._pool.submit(in_lane, picture) for picture in singles]
        wait(futures)
        return np.concatenate([future.result() for future in futures])
