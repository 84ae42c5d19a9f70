"""What results are called."""

from dataclasses import dataclass

from maskdrop.config import Output, SaveSettings


@dataclass(frozen=True)
class Result:
    """An encoded result, to be named ``STEM + tail``."""

    tail: str
    content: bytes


def tail_of(output: Output, settings: SaveSettings) -> str:
    """What follows the picture's stem in the result's name."""
    return settings.suffix_of(output) + settings.extension_of(output)


def tails_of(settings: SaveSettings) -> list[str]:
    """What follows the picture's stem in the name of each output that is wanted."""
    return [tail_of(output, settings) for output in settings.outputs]
