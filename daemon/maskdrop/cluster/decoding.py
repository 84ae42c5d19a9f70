"""First stage on a cluster: originals read and decoded by the daemon's own functions."""

import hashlib
import time
from dataclasses import replace

import numpy as np
import pyarrow as pa

from maskdrop.batch.ledger import Outcome
from maskdrop.cluster.attempts import attempted, ended_after
from maskdrop.cluster.cargo import End, Piece, Work, found_unread, left_for, packed, unpacked
from maskdrop.cluster.job import Job
from maskdrop.cluster.read_ahead import ReadAhead, reading_ahead
from maskdrop.cluster.stores import MANIFEST
from maskdrop.decoding import BrokenPicture, set_up_decoding
from maskdrop.leave_alone import LeaveAlone, UnfitName
from maskdrop.machine.heap import keep_memory
from maskdrop.preprocess import prepare_content
from maskdrop.results.render import Renderer
from maskdrop.ticket import Absence, Facts, Fault, Stage, cut
from maskdrop.topology.slots import OwnSlots

_CARRIED, _CARRIED_BY_BLOCK = 8 * 2**20, 16 * 2**20
"""Most bytes of an original, and of all in a block, that travel along where reading again costs requests."""

_CARRIED_SHARE = 2 / 3
"""The same for a larger block, as a share of its pixels' bytes; Ray's object stores are large then. For a
picture of 512 x 512 that is half a MiB, beside three quarters of a MiB of pixels."""


def decode_block(table: pa.Table, job: Job) -> pa.Table:
    """Read and decode a block's pictures. Those that are broken, gone, or done before have a row too."""
    keep_memory()
    set_up_decoding()
    decoder = _Decoder(job, table.num_rows)
    most = job.most_attempts
    return packed(attempted(unpacked(table), Stage.PREPROCESS, job.attempts, most, decoder.decode_all))


class _Decoder:
    """Decodes a block's pictures into one array, so that they travel on without a copy."""

    def __init__(self, job: Job, pictures: int) -> None:
        side = job.settings.model.input_size
        self._job, self._decoded = job, 0
        pixels = np.empty((pictures, side, side, 3), dtype=np.uint8)
        self._places = OwnSlots(side, pixels)
        self._renderer = Renderer(job.settings, self._places)
        self._room = max(_CARRIED_BY_BLOCK, round(pixels.nbytes * _CARRIED_SHARE))

    def decode_all(self, pieces: list[Piece]) -> list[Piece]:
        done, works = [], [piece.work for piece in pieces]
        most = self._job.settings.decode.max_bytes
        with reading_ahead(self._job.source, works, most) as ahead:
            for work in works:
                with ended_after(self._job.longest):
                    done.append(self._decode(work, ahead))
        return done

    def _decode(self, work: Work, ahead: ReadAhead) -> Piece:
        began = time.monotonic()
        settings = self._job.settings
        try:
            _check_name(work)
            content = self._read(work, ahead)
            sha256 = hashlib.sha256(content).hexdigest()
            work = replace(work, size=len(content), sha256=sha256)
            if sha256 == work.known:
                return Piece(replace(work, end=End(Outcome.DONE_BEFORE)))
            facts = prepare_content(content, sha256, settings.decode, self._places, self._decoded)
        except (LeaveAlone, MemoryError) as error:
            return left_for(work, error)
        except BrokenPicture as error:
            if not work.sha256 and error.error == "EmptyFile":
                work = replace(work, size=0)
            if work.known and work.known == found_unread(error.error, work.size):
                return Piece(replace(work, end=End(Outcome.DONE_BEFORE)))
            fault = Fault(Stage.PREPROCESS, error.error, cut(error))
            return Piece(replace(work, fault=fault, ms=_since(began)))
        pixels = self._places.pictures[self._decoded]
        self._decoded += 1
        return Piece(
            replace(work, facts=facts, ms=_since(began)), pixels, content=self._carried(content, facts)
        )

    def _read(self, work: Work, ahead: ReadAhead) -> bytes:
        try:
            return ahead.read(work.path)
        except LeaveAlone as error:
            if error.absence is not Absence.GONE:
                raise
            raise self._job.source.unreached(work.path) from error

    def _carried(self, content: bytes, facts: Facts) -> bytes | None:
        """The content, if the results need it and there is room."""
        is_wanted = self._job.source.is_remote and self._renderer.reads_original(facts)
        if not is_wanted or len(content) > min(_CARRIED, self._room):
            return None
        self._room -= len(content)
        return content


def _check_name(work: Work) -> None:
    """Check that a picture's results have a place of their own.

    Raises:
        UnfitName: they would lie among the parts of the manifest.
    """
    if work.path.startswith(f"{MANIFEST}/"):
        raise UnfitName(f"its results would lie in OUT's {MANIFEST}; rename its folder")


def _since(began: float) -> dict[str, float]:
    return {Stage.PREPROCESS.value: (time.monotonic() - began) * 1000}
