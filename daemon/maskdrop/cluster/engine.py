"""The one place that knows Ray: a cluster is joined or started, and blocks go through the stages on it."""

import contextlib
import gc
import logging
import os
import socket
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing is sent to anybody
# Otherwise a call into Ray after the end would start another cluster.
os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"
# For a cluster of this machine alone: by default, Ray ends task processes that are idle for a second, and
# starts new ones.
os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "60000")

# A cluster of this machine alone keeps the priority of the command: by default, Ray gives its tasks less.
os.environ.setdefault("RAY_worker_niceness", "0")

import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext, ExecutionResources
from ray.data._internal.execution.streaming_executor import StreamingExecutor
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from maskdrop.cluster.attempts import Begun, CannotLabel, Register
from maskdrop.cluster.decoding import decode_block
from maskdrop.cluster.finishing import finish_block
from maskdrop.cluster.job import Job
from maskdrop.cluster.labelling import Labeller
from maskdrop.cluster.own_folder import OwnFolder
from maskdrop.cluster.shape import Shape
from maskdrop.config_file import ConfigurationError, fault
from maskdrop.machine.cores import usable_cores

_CONNECT_S = 5.0
"""Longest wait for a cluster's address to answer, in seconds."""

_STORE_SHARE, _RESERVED = 0.5, 0.2
"""Share of the object stores that blocks may fill (the stores spill from 0.8 on: object_spilling_threshold);
and the share of this that Ray Data reserves for the stages in equal parts, whether they need it or not."""

_BLOCKS_IN_FLIGHT = 64
"""Most blocks in the object stores for each actor. Ray Data counts far more for each task than it will use
(twice ``target_max_block_size``), and divides the room among the operators: with 8, only one block at a time
was on its way through all of them."""

_WAITING_EACH = 2
"""Blocks that an actor has in hand: one to work at, and the next on its way to the actor's machine."""

_AS_THEY_ARE: dict[str, Any] = {"batch_size": None, "batch_format": "pyarrow", "zero_copy_batch": True}


class ClusterTrouble(Exception):
    """The cluster lost more than it could restore by itself; pictures without a row have to be done again."""


class Cluster:
    """A connection to a cluster; a cluster of this machine alone is started, and ends with it."""

    def __init__(self, address: str | None) -> None:
        """Connect or start.

        Raises:
            ConfigurationError: there is no such cluster.
        """
        self._folder: OwnFolder | None = None
        given = address or os.environ.get("RAY_ADDRESS", "")
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if given:
            options["address"] = _reachable(given)
        else:
            self._folder = OwnFolder()
            options |= {
                "address": "local",
                "num_cpus": usable_cores(),
                "include_dashboard": False,
                "_temp_dir": str(self._folder.path),
            }
        try:
            ray.init(**options)
        except Exception as error:  # it fails in many ways
            self.close()
            where = given or "a cluster of this machine"
            problem = f"Ray can't use it ({_told(error)})"
            remedy = "run this on a node of the cluster, with the same Ray and Python as there"
            raise fault("--address", where, problem, remedy) from error
        _quieten()
        self.statistics: list[str] = []
        try:
            self.register = RemoteRegister(_register())
        except BaseException:
            self.close()
            raise

    def nodes(self) -> dict[str, Mapping[str, float]]:
        """The resources of each node that is alive, by its identifier."""
        return {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}

    def run(self, blocks: Sequence[pa.Table], job: Job, shape: Shape) -> Iterator[pa.Table]:
        """Take blocks through all stages, in any order.

        Yields:
            Tables of pictures that have their end.

        Raises:
            ConfigurationError: the network can't be used.
            ClusterTrouble: the cluster could not restore what it lost.
        """
        gc.collect()  # actors of a failed execution keep their processors until its error is gone
        _set_up(shape, job)
        dataset = _staged(ray.data.from_arrow(list(blocks)), job, shape)
        try:
            yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow")
        except Exception as error:
            raise translated(error) from error
        finally:
            with contextlib.suppress(Exception):
                self.statistics.append(dataset.stats())

    def end_executions(self) -> None:
        """End executions that still run: iterations over their tables stop soon."""
        for thread in threading.enumerate():
            if isinstance(thread, StreamingExecutor):  # Ray Data hands it out only with the first block
                thread.shutdown(force=True)

    def close(self) -> None:
        """Disconnect, which ends whatever this batch still runs there.

        Executions must be over: Ray ends a process in which a thread calls it afterwards.
        """
        ray.shutdown()
        if self._folder is not None:
            self._folder.remove()
            self._folder = None

    def abandon(self) -> None:
        """Leave without disconnecting, which may take long. This process has to end next: the kernel then
        ends the servers of a cluster of this machine, and the servers end their tasks."""
        if self._folder is not None:
            self._folder.empty()


class RemoteRegister:
    """`Register` in an actor, beside the process that drives the batch."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def start(self) -> None:
        ray.get(self._actor.start.remote())

    def stop(self) -> int:
        return int(ray.get(self._actor.stop.remote()))

    def begin(self, block: str, pictures: int) -> Begun:
        begun: Begun = ray.get(self._actor.begin.remote(block, pictures, os.urandom(8).hex()))
        return begun

    def enter(self, block: str, position: int) -> None:
        ray.get(self._actor.enter.remote(block, position))

    def fail(self, block: str, reason: str) -> None:
        ray.get(self._actor.fail.remote(block, reason))

    def end(self, block: str) -> None:
        self._actor.end.remote(block)


def _register() -> Any:
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    # A call that is lost on its way is repeated; a register that was killed starts again, empty.
    lasting = {"max_restarts": -1, "max_task_retries": -1}
    return ray.remote(Register).options(num_cpus=0, scheduling_strategy=here, **lasting).remote()


def _staged(dataset: Any, job: Job, shape: Shape) -> Any:
    """The stages on a dataset of blocks; the second look at small faces only where it is configured."""
    tasks: dict[str, Any] = {**_AS_THEY_ARE, "num_cpus": shape.task_cpus}
    if shape.tasks is not None:
        tasks["compute"] = ray.data.TaskPoolStrategy(size=shape.tasks)
    looks_closer = job.settings.views > 0
    dataset = dataset.map_batches(decode_block, fn_kwargs={"job": job}, **tasks)
    dataset = _labelled(dataset, job, shape, looks_again=False)
    finish = {"job": job, "looks_closer": looks_closer}
    dataset = dataset.map_batches(finish_block, fn_kwargs=finish, **tasks)
    if looks_closer:
        dataset = _labelled(dataset, job, shape, looks_again=True)
        finish = {"job": job, "looks_closer": False}
        dataset = dataset.map_batches(finish_block, fn_kwargs=finish, **tasks)
    return dataset


class _Homes:
    """Names the node for each actor that is started; once that node is gone, Ray chooses another.

    By itself, Ray places actors and tasks in turns, so one node may get twice its share and another none.
    """

    def __init__(self, homes: Sequence[str]) -> None:
        self._homes = cycle(homes)

    def __call__(self) -> dict[str, Any]:
        return {"scheduling_strategy": NodeAffinitySchedulingStrategy(next(self._homes), soft=True)}


def _labelled(dataset: Any, job: Job, shape: Shape, looks_again: bool) -> Any:
    return dataset.map_batches(
        Labeller,
        fn_constructor_kwargs={
            "job": job,
            "device": "cuda" if shape.on_gpu else "cpu",
            "threads": shape.threads,
            "max_batch": shape.max_batch,
            "looks_again": looks_again,
        },
        compute=ActorPoolStrategy(size=shape.actors, max_tasks_in_flight_per_actor=_WAITING_EACH),
        num_cpus=0.1 * shape.actor_cpus if looks_again else shape.actor_cpus,
        num_gpus=shape.second_gpus if looks_again else shape.actor_gpus,
        ray_remote_args_fn=_Homes(shape.homes) if shape.homes else None,
        **{**_AS_THEY_ARE, "batch_size": shape.block if shape.on_gpu else None},  # Ray requires it for GPUs
    )


def _set_up(shape: Shape, job: Job) -> None:
    """Configure how Ray Data runs the datasets that are made from now on."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.raise_original_map_exception = True
    block = shape.block * job.settings.model.input_size**2 * 4
    context.op_resource_reservation_ratio = _RESERVED
    context.target_max_block_size = 2 * max(2**24, block)
    workers = job.settings.workers
    context.execution_no_progress_timeout_s = workers.stage_timeout_s + workers.start_timeout_s
    store = ray.cluster_resources().get("object_store_memory", 0.0)
    most = min(_STORE_SHARE * store, float(shape.actors * _BLOCKS_IN_FLIGHT * block))
    context.execution_options.resource_limits = ExecutionResources.for_limits(object_store_memory=most)


def _reachable(address: str) -> str:
    """The address, if anything answers there.

    Raises:
        ConfigurationError: nothing does, or it is no HOST:PORT.
    """
    if address == "auto":
        return address
    host, colon, port = address.rpartition(":")
    if "://" in address or not colon or not port.isdigit():
        raise _no_address(address)
    try:
        socket.create_connection((host, int(port)), _CONNECT_S).close()
    except OSError as error:
        problem = f"nobody answers there ({error.strerror or error})"
        raise fault("--address", address, problem, "start the head node: ray start --head") from error
    except (ValueError, OverflowError) as error:  # a name with nothing between two dots, a port of 30 digits
        raise _no_address(address) from error
    return address


def _no_address(address: str) -> ConfigurationError:
    remedy = "give HOST:PORT of the head node (6379 unless it was started otherwise), or auto"
    return fault("--address", address, "is no cluster's address", remedy)


def _quieten() -> None:
    warnings.filterwarnings("ignore", module=r"ray\.")
    warnings.filterwarnings("ignore", message=".*ray_remote_args_fn")  # pyproject.toml stays below 2.64
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and everything that caused it."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [one.__cause__, one.__context__, getattr(one, "cause", None)]


def translated(error: Exception) -> Exception:
    """The error to raise from a batch for an error of its execution."""
    causes = list(_causes(error))
    for cause in causes:
        if type(cause) is CannotLabel:  # not Ray's own error, which is a subclass of it
            return ConfigurationError(str(cause).splitlines()[0])  # Ray adds advice of its own
    if any(map(_is_of_the_stages, causes)):
        return error  # another try would raise it again
    return ClusterTrouble(_told(error))


def _is_of_the_stages(error: BaseException) -> bool:
    """Whether a task failed by an error of its own, not because something that it needed was lost."""
    cause = getattr(error, "cause", None)
    return isinstance(error, ray.exceptions.RayTaskError) and not isinstance(cause, ray.exceptions.RayError)


def _told(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
