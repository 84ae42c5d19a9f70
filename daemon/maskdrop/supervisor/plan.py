"""How many workers, slots and threads: what is set to ``auto`` follows the machine."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from maskdrop.config import Settings, WorkerSettings
from maskdrop.devices import PROBE_S, find_devices
from maskdrop.health.file import PlanHealth
from maskdrop.machine.cores import usable_cores
from maskdrop.machine.memory_limit import usable_bytes
from maskdrop.ticket import Cost, Stage

CPU_BATCH = 4
"""Pictures a batch on one thread: more gain nothing there and make each wait for the others."""

LANES = 2
"""Cores for each inference worker on a CPU, and so its threads, if there are enough for several workers.
More threads in one worker would wait for each other, for they take turns at Python; more workers cost
memory."""

INFERENCE_BYTES = 400 * 2**20
"""Resident memory of an inference process with the embedded weights on a CPU, as measured. Where the plan
chooses how many there are, they take at most half of the memory."""

SLOTS_SHARE = 4
"""Slots take at most one part in so many of the memory, where the plan chooses both batch and slots. With
half for inference workers, a quarter is left for other workers and for pictures at their own size."""

OTHERS_SHARE = 4
"""At most one part in so many of these slots is for decoders, and as many for savers."""

LANE_BATCH, MOST_LANES_BATCH = 8, 32
"""Pictures a batch for each of several threads, and for all of them at most, or one for each thread if that
is more. Threads wait for each other at the end of a batch: the longer it is, the less of the time."""

GPU_BATCH = 32
"""Pictures a batch on a GPU: about where throughput stops growing."""

CPU_HELD, GPU_HELD = 2, 3
"""Batches that an inference worker holds. On a CPU, one is computed while the next is gathered or begun. On a
GPU, the next is begun while one is computed, and when that is done a third has to be there."""

WAITERS, MOST_WAITERS = 8, 24
"""Most workers of a stage that mostly wait for a disk, for each core and in all. docs/performance.md says
what they gain where a sync takes 20 ms. This many in both stages take half of the usual 1,024 descriptors
(`ulimit -n`), as `maskdrop doctor` counts them."""

WAITING = 0.25
"""A worker that computes for no more than this share of its time waits for a disk, not for a core: with as
many workers in each of the three stages as there are cores, each still gets a third of a core."""

WAITER_BYTES = 170 * 2**20
"""Resident memory of a save process at a photograph of 12 megapixels, as measured. If a stage has more
workers than there are cores, they take at most a quarter of the memory."""

BUSY = 0.8
"""Largest share of its time that a worker should spend on pictures: nearer to 1, the queue before it
grows without end (waiting for one server is its load / (1 - load) services long, after Khinchin)."""

WAITERS_BUSY = 0.4
"""The same for a worker that mostly waits for a disk, and so takes little from others: pictures come to it a
batch at a time. docs/performance.md says what that gains."""


@dataclass(frozen=True)
class Plan:
    """Numbers for one run.

    Attributes:
        devices: the device of each inference worker; several may share one.
        threads: threads of each inference worker; all other workers have one.
        most_threads: threads that it may use for a picture that is the only one in the daemon.
        held: pictures that an inference worker holds at most.
        most_preprocess, most_save: how many workers there may come to be: the number that is set, or for
            ``auto`` at least one a core, and more for the case that they mostly wait (`useful_workers`).
        costs: what a picture costs each stage, which these numbers follow; empty while unknown.
    """

    preprocess: int
    save: int
    devices: tuple[str, ...]
    threads: int
    most_threads: int
    max_batch: int
    held: int
    slots: int
    most_preprocess: int
    most_save: int
    costs: Mapping[Stage, Cost]

    @property
    def at_once(self) -> int:
        """Pictures that an inference worker needs at the same time to be fully at work, as far as slots
        allow: on a CPU it begins a batch while it computes another one."""
        most = self.slots // len(self.devices)
        each = min(self.threads, 2 * self.max_batch) if self.devices[0] == "cpu" else self.max_batch
        return max(1, min(each, most))

    @property
    def most_workers(self) -> int:
        """How many workers of all kinds there may come to be."""
        return self.most_preprocess + len(self.devices) + self.most_save

    def told(self) -> PlanHealth:
        """The plan as the health file shows it."""
        known = self.costs
        measured = {s.value: round(known[s].milliseconds, 2) if s in known else None for s in Stage}
        return PlanHealth(
            preprocess=self.preprocess,
            infer=len(self.devices),
            save=self.save,
            threads=self.threads,
            max_batch=self.max_batch,
            slots=self.slots,
            measured_ms=measured,
        )


def make_plan(settings: Settings, patience_s: float = PROBE_S) -> Plan:
    """Fill in everything that is ``auto``.

    Args:
        patience_s: seconds after which a device's driver counts as hung.

    Raises:
        ConfigurationError: a device is named that is not there.
    """
    return plan_for(settings, find_devices(settings.model.device, patience_s))


def plan_for(settings: Settings, devices: tuple[str, ...], costs: Mapping[Stage, Cost] | None = None) -> Plan:
    """Fill in everything that is ``auto`` for known devices, by what a picture costs each stage if that is
    known.

    Args:
        devices: with or without repeats: how many workers each one has is decided here.
    """
    wanted, cores, memory = settings.workers, usable_cores(), usable_bytes()
    on_gpu = devices[0] != "cpu"
    inference = inference_for(wanted, on_gpu, cores, memory)
    devices = tuple(device for device in dict.fromkeys(devices) for _ in range(inference.workers))
    holds, most_slots = GPU_HELD if on_gpu else CPU_HELD, memory // SLOTS_SHARE // slot_bytes(settings)
    others = _others_slots(wanted, min(cores, most_slots // OTHERS_SHARE))
    batch = batch_for(wanted, on_gpu, inference.threads)
    if (wanted.max_batch, wanted.slots) == ("auto", "auto"):
        batch = max(1, min(batch, (most_slots - others) // (holds * len(devices))))
    held = batch * holds
    slots = held * len(devices) + others if wanted.slots == "auto" else wanted.slots
    waiters = _most_waiters(cores, memory, slots - batch * len(devices) - cores)
    preprocess, most_preprocess = (1, waiters) if wanted.preprocess == "auto" else (wanted.preprocess,) * 2
    save, most_save = (1, waiters) if wanted.save == "auto" else (wanted.save,) * 2
    if costs:
        rate = rate_of(costs, cores, len(devices))
        preprocess = min(most_preprocess, max(preprocess, workers_for(rate, costs[Stage.PREPROCESS], cores)))
        save = min(most_save, max(save, workers_for(rate, costs[Stage.SAVE], cores)))
    return Plan(
        preprocess=preprocess,
        save=save,
        devices=devices,
        threads=inference.threads,
        most_threads=inference.most_threads,
        max_batch=batch,
        held=held,
        slots=slots,
        most_preprocess=most_preprocess,
        most_save=most_save,
        costs=dict(costs or {}),
    )


def slot_bytes(settings: Settings) -> int:
    """Shared memory that a slot takes: pixels and labels, of the picture and of each face."""
    return (1 + settings.views) * settings.model.input_size**2 * 4


def _others_slots(wanted: WorkerSettings, cores: int) -> int:
    """Slots for the workers that don't infer: two for each, its own and the next one; where their number is
    ``auto``, one a core for each stage, and at least two. Measured costs have no say: to change the slots,
    all workers would have to be replaced."""
    others = (wanted.preprocess, wanted.save)
    return sum(max(2, cores) if number == "auto" else 2 * number for number in others)


def _most_waiters(cores: int, memory: int, spare: int) -> int:
    """Most workers that a stage may have if they mostly wait for a disk; never fewer than cores.

    Args:
        memory: bytes that may be used at most.
        spare: slots beyond a batch for each inference worker and one for each core.
    """
    return max(cores, min(WAITERS * cores, MOST_WAITERS, memory // 4 // WAITER_BYTES, spare))


class Inference(NamedTuple):
    """Inference workers for each device, threads of each, and threads that a single picture may have."""

    workers: int
    threads: int
    most_threads: int


def inference_for(wanted: WorkerSettings, on_gpu: bool, cores: int, memory: int) -> Inference:
    """How a device's inference is shared out among workers and threads.

    Args:
        memory: bytes that may be used at most.
    """
    each = 1 if wanted.infer == "auto" else wanted.infer
    if wanted.inference_threads != "auto":
        return Inference(each, wanted.inference_threads, wanted.inference_threads)
    if on_gpu:
        return Inference(each, 1, 1)
    if wanted.infer == "auto":
        each = max(1, min(cores // LANES, memory // 2 // INFERENCE_BYTES))
    return Inference(each, max(1, cores // each), cores)


def batch_for(wanted: WorkerSettings, on_gpu: bool, threads: int) -> int:
    """Pictures that are inferred together at most."""
    if wanted.max_batch != "auto":
        return wanted.max_batch
    if on_gpu:
        return GPU_BATCH
    return CPU_BATCH if threads == 1 else max(threads, min(LANE_BATCH * threads, MOST_LANES_BATCH))


def rate_of(costs: Mapping[Stage, Cost], cores: int, inferrers: int) -> float:
    """Pictures a second with cores and inference workers in full use: as many as the inference workers label,
    but no more than the cores, which all stages share, can compute."""
    computing = sum(cost.processor_ms for cost in costs.values())
    return 1000 * min(inferrers / costs[Stage.INFER].milliseconds, cores / computing)


def workers_for(rate: float, cost: Cost, cores: int) -> int:
    """Workers that can take so many pictures a second while busy for at most `BUSY` of their time, or
    `WAITERS_BUSY` (Little's law: rate times time is how many pictures are worked on at once), but no more
    than `useful_workers`."""
    computing = cost.processor_ms / cost.milliseconds
    busy = WAITERS_BUSY if computing <= WAITING else BUSY
    return min(max(1, math.ceil(rate * cost.milliseconds / 1000 / busy)), useful_workers(cores, computing))


def useful_workers(cores: int, computing: float) -> int:
    """Workers of one stage that keep the cores at work: one a core, or, if they mostly wait for a disk, as
    many more as it takes to fill the time that these leave idle.

    Args:
        computing: share of its time for which a worker has a core, 0 to 1.
    """
    return max(cores, int(cores / max(computing, cores / MOST_WAITERS))) if computing <= WAITING else cores
