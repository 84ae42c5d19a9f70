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

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing is told to anybody
# Whoever still asks it for something after the end would have it start another cluster.
os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"
# Of a cluster of this machine: Ray would end task processes that are idle for a second, and start new ones.
os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "60000")

# A cluster of this machine has the priority of the command that starts it: Ray would give its tasks less.
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
"""Share of the object stores that blocks may fill, which spill from 0.8 on (object_spilling_threshold); and
share of this that Ray Data keeps free for the stages in equal parts, whether they need it or not."""

_BLOCKS_IN_FLIGHT = 64
"""Blocks for each actor that may be in the object stores at most. Ray Data counts much more than there will
be for each task (twice ``target_max_block_size``) and deals it out by operator: with 8, one block was on its
way at a time, from the first operator to the last."""

_WAITING_EACH = 2
"""Blocks that an actor has in hand: one to work at, the next one on its way to its machine."""

_AS_THEY_ARE: dict[str, Any] = {"batch_size": None, "batch_format": "pyarrow", "zero_copy_batch": True}


class ClusterTrouble(Exception):
    """The cluster lost more than it could make good by itself; what has no row is to be done again."""


class Cluster:
    """A connection to a cluster, or one of this machine alone, which ends with it."""

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
            Tables of pictures that have their end, or are lost with what they were on.

        Raises:
            ConfigurationError: the network can't be used.
            ClusterTrouble: what was lost could not be made good.
        """
        gc.collect()  # the actors of an execution that failed have their processors until its error is gone
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
        """End what still runs: whoever iterates over it comes to its end soon."""
        for thread in threading.enumerate():
            if isinstance(thread, StreamingExecutor):  # Ray Data hands it out only with its first block
                thread.shutdown(force=True)

    def close(self) -> None:
        """Disconnect; what this batch still has there ends.

        Executions must be over: Ray ends a process in which a thread asks it for something afterwards.
        """
        ray.shutdown()
        if self._folder is not None:
            self._folder.remove()
            self._folder = None

    def abandon(self) -> None:
        """Leave without asking the cluster, for that may take long. This process has to end next: with it the
        kernel ends the servers of a cluster of this machine, and they their tasks."""
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
    # A call that is lost on its way is made again; whoever killed the register has it begin anew.
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
    """Says of each actor that is started on which node it is to be; elsewhere, once that one is gone.

    Ray deals actors out in turns with tasks, so that a node may get twice its share and another one nothing.
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
        **{**_AS_THEY_ARE, "batch_size": shape.block if shape.on_gpu else None},  # Ray wants one for GPUs
    )


def _set_up(shape: Shape, job: Job) -> None:
    """How Ray Data is to run what is made from now on."""
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
    """The address, if somebody answers there.

    Raises:
        ConfigurationError: nobody does, or it is of another kind.
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
    """An error and all that it came from."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [one.__cause__, one.__context__, getattr(one, "cause", None)]


def translated(error: Exception) -> Exception:
    """What an execution's end means to a batch."""
    causes = list(_causes(error))
    for cause in causes:
        if type(cause) is CannotLabel:  # and not Ray's own error that is one too
            return ConfigurationError(str(cause).splitlines()[0])  # Ray adds advice of its own
    if any(map(_is_of_the_stages, causes)):
        return error  # which would come again
    return ClusterTrouble(_told(error))


def _is_of_the_stages(error: BaseException) -> bool:
    """Whether a task failed by itself: not because what it asked for was lost."""
    cause = getattr(error, "cause", None)
    return isinstance(error, ray.exceptions.RayTaskError) and not isinstance(cause, ray.exceptions.RayError)


def _told(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
