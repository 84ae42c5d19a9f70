"""How a cluster is used: inference actors, threads and processors of each, and pictures in a block."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from math import ceil

from maskdrop.config import Settings
from maskdrop.config_file import fault
from maskdrop.supervisor.plan import GPU_BATCH, batch_for

MOST_THREADS = 4
"""Most threads of an actor on a CPU: a node with more processors gets more actors. Where nodes have two or
more, each gets at least two actors: one computes while the other takes or hands over a block."""

CPU_BLOCK = 16
"""Most pictures in a block on a CPU where the object stores are small: about a second's work."""

BLOCK_BYTES = 24 * 2**20
"""Most bytes of a block's pixels there: several blocks in every stage fit into the smallest object store."""

MOST_BLOCK, STORE_BLOCKS = 64, 20
"""Most pictures in a block where the object stores are larger, and how many such blocks the smallest store
must have room for, for each actor of its node: with fewer, Ray Data holds blocks back. A block costs Ray a
fifth of a second of processor time, however many pictures are in it."""

_BLOCKS_EACH = 16
"""Blocks that each actor gets at least, so that all end at about the same time."""

_LEAST_BLOCK = 4

_SECOND_LOOK = 0.1
"""Share of a GPU for actors that look again at small faces: they rarely work, and beside the others."""

_ACTOR_SHARE, _TASK_SHARE = 0.25, 0.1
"""Processors reserved for each thread of an actor, and for a task, on a CPU. They use far more, but how many
run is decided here; with so few, the actors of a node that died find room on another. The two shares differ,
so that Ray Data doesn't fuse decoding into the actors."""


@dataclass(frozen=True)
class Shape:
    """Numbers for one run.

    Attributes:
        actors: inference actors, one a GPU; on CPUs, one for each ``threads`` processors of a node.
        homes: on CPUs, the identifier of each actor's node; empty with GPUs, whose number already limits the
            actors on a node.
        tasks: decoding and saving tasks at a time, each; None: as many as there are processors for.
        max_batch: most pictures that the network gets at once.
        block: pictures that travel together.
    """

    actors: int
    homes: tuple[str, ...]
    threads: int
    on_gpu: bool
    actor_cpus: float
    actor_gpus: float
    second_gpus: float
    tasks: int | None
    task_cpus: float
    max_batch: int
    block: int


def shape_for(nodes: Mapping[str, Mapping[str, float]], settings: Settings, pictures: int) -> Shape:
    """The shape for so many pictures on nodes with these resources, as Ray gives them by node identifier.

    Raises:
        ConfigurationError: a GPU is asked for by its number, or no node has one; or there are no processors,
            or too few beside the GPUs.
    """
    wanted, device = settings.workers, settings.model.device
    if device.startswith("cuda:"):
        raise fault("model.device", device, "Ray itself deals out the GPUs", "set it to auto, cuda or cpu")
    gpus = int(sum(node.get("GPU", 0) for node in nodes.values())) if device != "cpu" else 0
    if device == "cuda" and not gpus:
        raise fault("model.device", device, "no node of the cluster has a GPU", "set it to auto or cpu")
    cores = {name: count for name, node in nodes.items() if (count := int(node.get("CPU", 0)))}
    if not cores:
        raise fault("--address", "", "no node of the cluster has a processor", "start nodes with --num-cpus")
    threads = 1
    if gpus:
        actors_take = gpus * (1 + (_SECOND_LOOK if settings.views else 0.0))
        if sum(cores.values()) < actors_take + 1:
            problem = f"of {sum(cores.values())} processors none is left to decode beside {gpus} GPUs"
            raise fault("--address", "", problem, "start nodes with --num-cpus of three or more for each GPU")
        room = {name: count for name, node in nodes.items() if (count := int(node.get("GPU", 0)))}
    else:
        threads = min(MOST_THREADS, max(1, min(cores.values()) // 2))
        if wanted.inference_threads != "auto":
            threads = wanted.inference_threads
        room = {name: max(1, count // threads) for name, count in cores.items()}
    actors = sum(room.values())
    store = min(int(node.get("object_store_memory", 0)) // room.get(name, 1) for name, node in nodes.items())
    most = _most_in_block(settings.model.input_size, GPU_BATCH if gpus else CPU_BLOCK, store)
    block = min(most, max(_LEAST_BLOCK, ceil(pictures / actors / _BLOCKS_EACH)))
    second = _SECOND_LOOK if settings.views and gpus else 0.0
    actors = max(1, min(actors, ceil(pictures / block)))
    return Shape(
        actors=actors,
        homes=() if gpus else tuple(islice(_dealt(room), actors)),
        threads=threads,
        on_gpu=bool(gpus),
        actor_cpus=1.0 if gpus else _ACTOR_SHARE * min(threads, max(cores.values())),
        actor_gpus=1.0 - second if gpus else 0.0,
        second_gpus=second,
        tasks=None if gpus else sum(map(_tasks_on, cores.values())),
        task_cpus=1.0 if gpus else _TASK_SHARE,
        max_batch=batch_for(wanted, bool(gpus), threads),
        block=block,
    )


def _dealt(room: Mapping[str, int]) -> Iterator[str]:
    """Each node as often as it has room for an actor, in turns, so that few actors spread over many nodes."""
    for turn in range(max(room.values())):
        yield from (name for name, places in room.items() if places > turn)


def _tasks_on(cores: int) -> int:
    """Decoding tasks at a time on a node without a GPU, and as many saving tasks. For small pictures, an
    eighth of a core keeps up with a core that infers; large ones take longer, hence two tasks where there
    are two cores."""
    return max(min(cores, 2), cores // 8)


def _most_in_block(side: int, usual: int, store: int) -> int:
    """Most pictures in a block, if the smallest object store has ``store`` bytes for each actor."""
    each = side * side * 3
    return max(1, min(usual, BLOCK_BYTES // each), min(MOST_BLOCK, store // STORE_BLOCKS // each))
