"""A process whose memory is really limited runs one batch; it tells what it reported, as JSON.

Arguments: weights file, device, pictures in the batch, and MiB it may map beyond what it has.
"""

import json
import multiprocessing
import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maskdrop.config import ModelSettings
from maskdrop.infer import compute
from maskdrop.model.parser import load_parser
from maskdrop.ticket import Infer
from maskdrop.topology.slots import SharedSlots
from maskdrop.topology.worker import Link


def limit_memory(device: str, mib: int) -> None:
    """On a GPU, of what PyTorch may reserve; on a CPU, of what the process may map."""
    if device.startswith("cuda"):
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + mib * 2**20) / total)
        return
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit, most = pages * resource.getpagesize() + mib * 2**20, resource.RLIM_INFINITY
    resource.setrlimit(resource.RLIMIT_AS, (limit, most))


def lift_limit(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.set_per_process_memory_fraction(1.0)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def main(weights: str, device: str, count: int, mib: int) -> None:
    torch.set_num_threads(1)
    parser = load_parser(ModelSettings(weights=Path(weights), precision="fp32"), device)
    slots = SharedSlots(count, 512)
    slots.pictures[:] = np.random.default_rng(1).integers(0, 256, slots.pictures.shape, dtype=np.uint8)
    slots.labels[:] = 255
    reports, theirs = multiprocessing.Pipe(duplex=False)
    unused, tasks = multiprocessing.Pipe(duplex=False)
    limit_memory(device, mib)
    told: dict[str, Any] = {"error": ""}
    try:
        compute([Infer(i + 1, i) for i in range(count)], parser, slots, Link(unused, theirs))
    except MemoryError as error:
        told["error"] = str(error)
    lift_limit(device)
    told["reports"] = []
    while reports.poll(0):
        report = reports.recv()
        told["reports"].append([type(report).__name__, list(report.numbers)])
    if not told["error"]:  # after that a process is not to be trusted with more: the worker would end
        wanted = np.concatenate([parser.parse(slots.pictures[i : i + 1]) for i in range(count)])
        told["alike"] = [float(np.mean(slots.labels[i] == wanted[i])) for i in range(count)]
    tasks.close()
    print(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
