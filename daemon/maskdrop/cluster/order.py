"""From the words of a command to a batch on a cluster: its places are found and checked before any work."""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskdrop.batch.settings import settings_for
from maskdrop.cluster.access import Access
from maskdrop.cluster.inputs import Inputs, find_inputs
from maskdrop.cluster.manifest import Manifest
from maskdrop.cluster.object_store import ObjectStore
from maskdrop.cluster.run import Order
from maskdrop.cluster.schemes import SCHEME
from maskdrop.cluster.stores import MANIFEST, FolderStore, Store, require
from maskdrop.config import FolderSettings
from maskdrop.config_file import check_weights, fault
from maskdrop.folders import check_nesting, check_writable, followed, make_folder
from maskdrop.model.embedded import embedded_weights

_ELSEWHERE = Path("/nonexistent")
"""Stands in for the folders that settings have to name; nothing touches it."""


@dataclass(frozen=True)
class Words:
    """What was given on the command line; see there."""

    source: str
    outbox: str
    quarantine: str | None
    address: str | None
    endpoint: str | None
    config: Path | None
    overrides: Mapping[str, Mapping[str, Any]]
    again: bool


def order_of(words: Words, environment: Mapping[str, str] = os.environ) -> Order:
    """The batch that the words ask for.

    Args:
        environment: with AWS's own variables.

    Raises:
        ConfigurationError: it can't be done as asked.
        PlaceTrouble: a place can't be used now.
    """
    overrides = {section: dict(values) for section, values in words.overrides.items()}
    settings = settings_for(
        words.config, _ELSEWHERE / "in", _ELSEWHERE / "out", None, overrides, verbose=False
    )
    check_weights(settings.model.weights)
    access = Access.of(environment, words.endpoint, settings.workers.stage_timeout_s)
    inputs = find_inputs(words.source, access, settings.folders)
    named = {"outbox": words.outbox}
    if words.quarantine is not None:
        named["quarantine"] = words.quarantine
    _check_nesting(inputs, named)
    places = {key: _place(key, place, access, settings.folders) for key, place in named.items()}
    manifest = Manifest(places["outbox"], inputs.store.address)
    return Order(
        settings,
        inputs,
        places["outbox"],
        places.get("quarantine"),
        manifest,
        words.address,
        not words.again,
        hashlib.sha256((settings.model.weights or embedded_weights()).read_bytes()).hexdigest(),
    )


def _check_nesting(inputs: Inputs, named: Mapping[str, str]) -> None:
    """Check that nothing written can be an input of the next run, or replace something else written."""
    here = {key: Path(place).absolute() for key, place in named.items() if not place.startswith(SCHEME)}
    folders = {key: followed(f"folders.{key}", folder) for key, folder in here.items()}
    prefixes = {key: _prefix(place) for key, place in named.items() if place.startswith(SCHEME)}
    if isinstance(inputs.base, Path):
        check_nesting({"inbox": inputs.base, **folders})
    for key, prefix in prefixes.items():
        if not isinstance(inputs.base, str):
            continue
        source = f"{SCHEME}{inputs.base}"
        if _lies_in(prefix, source, inputs.is_meant):
            raise fault(f"folders.{key}", named[key], "lies inside IN", "choose a prefix outside it")
        if _lies_in(source, prefix, None):
            raise fault(f"folders.{key}", named[key], "has IN inside it", "choose a prefix beside IN")
    places = {**{key: str(folder) for key, folder in folders.items()}, **prefixes}
    out, broken = places["outbox"], places.get("quarantine")
    if broken is not None and (broken == out or f"{broken}/".startswith(f"{out}/{MANIFEST}/")):
        where = "is the outbox too" if broken == out else "lies in the manifest"
        raise fault("folders.quarantine", broken, where, "give each a place of its own")


def _prefix(place: str) -> str:
    """A place in object storage, always spelt the same way."""
    return SCHEME + place.removeprefix(SCHEME).strip("/")


def _lies_in(prefix: str, base: str, is_meant: Callable[[str], bool] | None) -> bool:
    """Whether what is written below a prefix could be an input."""
    below = f"{prefix}/".removeprefix(f"{base}/")
    if below == f"{prefix}/":
        return False
    name = below.partition("/")[0]
    return not name or is_meant is None or is_meant(name)


def _place(key: str, named: str, access: Access, settings: FolderSettings) -> Store:
    """Where results or broken pictures go; a missing folder is made."""
    if named.startswith(SCHEME):
        access.check()
        store = ObjectStore(_prefix(named).removeprefix(SCHEME), access)
        if not store.base:
            raise fault(f"folders.{key}", named, "names no bucket", f"write {SCHEME}BUCKET/PREFIX")
        require(store, writes=True, name=f"folders.{key}", named=named)
        return store
    folder = Path(named).absolute()
    make_folder(f"folders.{key}", folder)
    check_writable(f"folders.{key}", folder)
    return FolderStore(folder.resolve(), settings)
