"""The nineteen labels of face parsing: numbers, names, mirror pairs and colours."""

from enum import IntEnum

Colour = tuple[int, int, int]
"""Red, green and blue, 8 bits each."""


class Part(IntEnum):
    """Label numbers in the order of the public BiSeNet face-parsing checkpoints."""

    BACKGROUND = 0
    SKIN = 1
    LEFT_BROW = 2
    RIGHT_BROW = 3
    LEFT_EYE = 4
    RIGHT_EYE = 5
    GLASSES = 6
    LEFT_EAR = 7
    RIGHT_EAR = 8
    EARRING = 9
    NOSE = 10
    MOUTH = 11
    UPPER_LIP = 12
    LOWER_LIP = 13
    NECK = 14
    NECKLACE = 15
    CLOTH = 16
    HAIR = 17
    HAT = 18

    @property
    def label(self) -> str:
        """The name used in configuration and reports, such as ``left_brow``."""
        return self.name.lower()


PART_NAMES = tuple(part.label for part in Part)
"""Names of all parts, in label order."""

ARTICLE_PARTS = ("skin", "left_brow", "right_brow", "nose", "upper_lip", "lower_lip")
"""The parts kept unless configured otherwise: skin, brows, nose and lips."""

CORE_PARTS = (
    *("left_brow", "right_brow", "left_eye", "right_eye"),
    *("nose", "mouth", "upper_lip", "lower_lip"),
)
"""Parts that only a face has; their extent shows its size."""

FACE_PARTS = (*CORE_PARTS, "skin", "glasses")
"""Parts that make one face together."""

MIRROR_PAIRS = (
    (Part.LEFT_BROW, Part.RIGHT_BROW),
    (Part.LEFT_EYE, Part.RIGHT_EYE),
    (Part.LEFT_EAR, Part.RIGHT_EAR),
)
"""Labels that change places when a picture is mirrored."""

PALETTE: tuple[Colour, ...] = (
    (0, 0, 0),
    (244, 194, 161),
    (128, 72, 24),
    (168, 104, 48),
    (48, 112, 224),
    (80, 160, 255),
    (64, 64, 64),
    (232, 140, 120),
    (240, 164, 140),
    (255, 215, 0),
    (255, 160, 96),
    (120, 0, 48),
    (208, 32, 80),
    (240, 80, 112),
    (208, 152, 120),
    (0, 200, 200),
    (72, 136, 88),
    (96, 48, 128),
    (176, 208, 64),
)
"""RGB colour of each label, 8 bits per channel, in label order."""


def palette_of(count: int) -> tuple[Colour, ...]:
    """A colour for each of ``count`` classes: the parts' own for nineteen, else PASCAL VOC's.

    VOC's colours spread a label's bits over the channels' high bits (VOCdevkit, ``VOClabelcolormap``).
    """
    return PALETTE if count == len(PALETTE) else tuple(_voc_colour(label) for label in range(count))


def _voc_colour(label: int) -> Colour:
    channels = [0, 0, 0]
    for bit in range(8):
        for channel in range(3):
            channels[channel] |= (label >> (3 * bit + channel) & 1) << (7 - bit)
    return channels[0], channels[1], channels[2]
