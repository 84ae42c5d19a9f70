"""A batch on a cluster whose nodes count GPUs: which of them each inference actor is given.

    python tests/gpu_census.py ADDRESS PICTURES OUT FOLDER

Actors are held at their first blocks until each has one, and until Ray has dealt out all of the GPUs. Prints
what each was given, as JSON, and how the batch ends then.
"""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import ray

from maskdrop.cluster.attempts import Begun
from maskdrop.cluster.cargo import Piece, Work, packed
from maskdrop.cluster.engine import Cluster
from maskdrop.cluster.job import Job
from maskdrop.cluster.order import Words, order_of
from maskdrop.cluster.shape import shape_for
from maskdrop.config_file import ConfigurationError
from waiting import wait_for

GO = "go"


@dataclass(frozen=True)
class Census:
    """Attempts of which nothing is remembered; where an actor tells what it was given, and waits."""

    folder: Path

    def begin(self, block: str, pictures: int) -> Begun:
        if not pictures:  # an actor's
            where = ray.get_runtime_context()
            given = where.get_accelerator_ids()["GPU"]
            note = {"node": where.get_node_id(), "gpus": given, "seen": os.environ["CUDA_VISIBLE_DEVICES"]}
            (self.folder / f"{os.getpid()}.json").write_text(json.dumps(note))
            wait_for(lambda: (self.folder / GO).exists(), "the others")
        return Begun()

    def enter(self, block: str, position: int) -> None: ...

    def fail(self, block: str, reason: str) -> None: ...

    def end(self, block: str) -> None: ...


def main() -> None:
    address, pictures, out, given = sys.argv[1:]
    order, folder = order_of(Words(pictures, out, None, address, None, None, {}, False)), Path(given)
    cluster = Cluster(address)
    works = [Work(one.path, one.size) for one in order.inputs]
    shape = shape_for(cluster.nodes(), order.settings, len(works))
    job = Job(order.settings, order.inputs.store, order.target, None, Census(folder))
    ends: list[str] = []

    def go_through() -> None:
        try:
            for _ in cluster.run([packed([Piece(work)]) for work in works], job, shape):
                pass
        except ConfigurationError as error:
            ends.append(str(error))

    carrier = Thread(target=go_through)
    carrier.start()
    try:
        wait_for(lambda: len(list(folder.glob("*.json"))) == shape.actors, "all actors")
        wait_for(lambda: ray.available_resources().get("GPU", 0.0) < 0.01, "those who look again")
    finally:
        (folder / GO).touch()
        carrier.join()
        cluster.close()
    notes = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    print(json.dumps({"actors": notes, "ends": ends}))


if __name__ == "__main__":
    main()
