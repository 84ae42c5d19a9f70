"""The article's pipeline, written from its description: 4 kinds of process, 3 unbounded queues.

    python bench/article.py PICTURES RESULTS [--processes 8] [--threads 0]

One process lists the pictures; eight preprocess, eight infer, eight mask and save; float tensors and
pixels go from one to the next through multiprocessing's queues. Unlike the article's, it tells each
process when nothing more comes, and counts the saved pictures, so that none is missed.
The clock runs from the first path to the last saved picture, when all processes are up and the inferring ones
have labelled an empty picture, as the plain loop and maskdrop are warm too. Prints JSON.
"""

import argparse
import json
import queue
import resource
import sys
import time
from collections.abc import Callable
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing  # makes queues carry tensors in shared memory, as in the article

import article_steps
from maskdrop.config import MODEL_SIDE

PATIENCE_S = 900.0

Item = tuple[Any, ...]


def list_paths(folder: Path, paths: "Queue[Item | None]", ready: "Queue[str]", go: Event) -> None:
    ready.put("list")
    go.wait()
    for path in sorted(folder.iterdir()):
        paths.put((path, [time.monotonic()]))


def preprocess(paths: Any, images: Any, ready: Any, over: Event, threads: int) -> None:
    begin(ready, "preprocess", threads)
    while (item := paths.get()) is not None:
        path, times = item
        times.append(time.monotonic())
        tensor, pixels = article_steps.preprocess(path)
        images.put((tensor, pixels, path, [*times, time.monotonic()]))
    over.wait()  # a tensor in the queue needs the process that put it there


def infer(images: Any, results: Any, ready: Any, over: Event, threads: int) -> None:
    net = article_steps.network()
    empty = torch.zeros(1, 3, MODEL_SIDE, MODEL_SIDE)
    begin(ready, "infer", threads, lambda: article_steps.infer(net, empty))
    while (item := images.get()) is not None:
        tensor, pixels, path, times = item
        times.append(time.monotonic())
        labels = article_steps.infer(net, tensor)
        results.put((labels, pixels, path, [*times, time.monotonic()]))
    over.wait()


def finish(results: Any, folder: Path, done: Any, ready: Any, threads: int) -> None:
    begin(ready, "finish", threads)
    while (item := results.get()) is not None:
        labels, pixels, path, times = item
        times.append(time.monotonic())
        article_steps.finish(labels, pixels, folder / path.name)
        done.put([*times, time.monotonic()])


def begin(ready: Any, stage: str, threads: int, warm_up: Callable[[], object] = lambda: None) -> None:
    if threads:
        torch.set_num_threads(threads)
    warm_up()
    ready.put(stage)


def run(pictures: Path, target: Path, processes: int, threads: int) -> dict[str, Any]:
    """Send all pictures of a folder through the pipeline; figures as in `told`."""
    context: SpawnContext = torch.multiprocessing.get_context("spawn")
    paths, images, results, done, ready = (context.Queue() for _ in range(5))
    go, over = context.Event(), context.Event()
    workers: list[SpawnProcess] = [context.Process(target=list_paths, args=(pictures, paths, ready, go))]
    for _ in range(processes):
        workers += [
            context.Process(target=preprocess, args=(paths, images, ready, over, threads)),
            context.Process(target=infer, args=(images, results, ready, over, threads)),
            context.Process(target=finish, args=(results, target, done, ready, threads)),
        ]
    try:
        for worker in workers:
            worker.start()
        for _ in workers:
            next_of(ready, workers)
        go.set()
        count = len(list(pictures.iterdir()))
        times = [next_of(done, workers) for _ in range(count)]
        for _ in range(processes):
            for waiting in (paths, images, results):
                waiting.put(None)
        over.set()
        for worker in workers:
            worker.join()
    finally:
        for worker in workers:
            if worker.is_alive():
                worker.kill()
    return told(times)


def next_of(waiting: Any, workers: list[SpawnProcess]) -> Any:
    """The next item.

    Raises:
        SystemExit: a worker failed, or nothing comes.
    """
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            return waiting.get(timeout=2)
        except queue.Empty:
            if any(worker.exitcode for worker in workers):
                break
    sys.exit("a process of the article's pipeline died, or all of them wait in vain")


def told(times: list[list[float]]) -> dict[str, Any]:
    """Pictures, seconds, and mean milliseconds of each stage and in each queue.

    Args:
        times: for each picture, when its path was put, preprocessing began and ended, inference
            began and ended, saving began and ended.
    """
    spans = [
        sum(end - begin for begin, end in zip(column, following, strict=True)) * 1000 / len(times)
        for column, following in ((([t[i] for t in times]), ([t[i + 1] for t in times])) for i in range(6))
    ]
    return {
        "pictures": len(times),
        "seconds": max(t[6] for t in times) - min(t[0] for t in times),
        "stages": {"preprocess": spans[1], "infer": spans[3], "save": spans[5]},
        "queues": {"paths": spans[0], "images": spans[2], "results": spans[4]},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--processes", type=int, default=8, help="for each stage; the article has 8")
    parser.add_argument("--threads", type=int, default=0, help="of PyTorch in each; 0: PyTorch's own choice")
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each queued tensor takes a descriptor
    options.results.mkdir(parents=True, exist_ok=True)
    figures = run(options.pictures.absolute(), options.results.absolute(), options.processes, options.threads)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
