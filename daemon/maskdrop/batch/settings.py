"""The settings of a batch: a daemon's, without those that don't concern a batch."""

from pathlib import Path
from typing import Any

from maskdrop.config import Settings
from maskdrop.config_file import load_settings

HEALTH_NAME = ".maskdrop.health.json"
"""The health file of a batch, in its outbox: ``maskdrop top`` reads it."""


def settings_for(
    config: Path | None,
    source: Path,
    outbox: Path,
    quarantine: Path | None,
    overrides: dict[str, dict[str, Any]],
    verbose: bool,
) -> Settings:
    """A daemon's configuration, with a batch's folders, and without what doesn't concern a batch.

    Raises:
        ConfigurationError: the file can't be read, or a value can't be used.
    """
    folders = {"inbox": source, "outbox": outbox}
    settings = load_settings(config, {"folders": folders, **overrides})
    return settings.with_values(
        {
            "folders": {"quarantine": quarantine, "archive": None},
            "health": {"file": settings.folders.outbox / HEALTH_NAME},
            "metrics": {"file": None, "port": None},
            "log": {"level": "info" if verbose else "error", "format": "text", "file": None},
        }
    )
