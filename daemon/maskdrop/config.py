"""Configuration: what may be set, its defaults, and the messages for wrong values."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from maskdrop.config_values import NUMBER, Clash, Folder, Permissions, Switch
from maskdrop.parts import ARTICLE_PARTS, FACE_PARTS, PART_NAMES, Colour, palette_of

MODEL_SIDE = 512
"""Pixels per side at which BiSeNet face parsing reads a picture."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Mean of red, green and blue over ImageNet, on a scale of 0 to 1 (torchvision's reference)."""

IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
"""Standard deviation of the same (torchvision's reference)."""

Format = Literal["jpeg", "png", "webp"]
ImageOutput = Literal["face", "model", "cutout", "labels", "overlay"]
Output = ImageOutput | Literal["json"]
Metadata = Literal["exif", "icc", "gps"]
SIDECAR_ENDING = ".json"
"""How sidecars' names end. A sidecar says in its content which picture it describes."""

EXTENSION: dict[Format, str] = {"jpeg": ".jpg", "png": ".png", "webp": ".webp"}
Auto = Literal["auto"]

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
"""Picture formats that are read unless configured otherwise (Pillow's names)."""


class Section(BaseModel):
    """A table of the configuration file: frozen, and no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)


class FolderSettings(Section):
    """Where pictures come from and go to. Folders that are not set are made beside the inbox."""

    inbox: Folder
    outbox: Folder
    quarantine: Folder | None = None
    archive: Folder | None = None
    after: Literal["archive", "delete"] = "archive"
    file_mode: Permissions = "0644"

    @property
    def quarantine_folder(self) -> Path:
        return self.quarantine or self.inbox.parent / "quarantine"

    @property
    def archive_folder(self) -> Path | None:
        """None where originals are deleted."""
        if self.after == "delete":
            return None
        return self.archive or self.inbox.parent / "archive"

    @property
    def mode(self) -> int:
        return int(self.file_mode, 8)

    @property
    def folder_mode(self) -> int:
        """Permissions of new folders: whoever may read a file may enter its folder."""
        return self.mode | 0o700 | (self.mode & 0o444) >> 2


class WatchSettings(Section):
    """How new pictures are noticed."""

    polling: Switch = False
    recursive: Switch = True
    settle_ms: Annotated[int, Field(ge=0, le=3_600_000), NUMBER] = 500
    rescan_s: Annotated[float, Field(ge=0.1, le=86_400), NUMBER] = 30.0


class DecodeSettings(Section):
    """What is accepted as a picture."""

    formats: Annotated[tuple[str, ...], Field(min_length=1)] = FORMATS
    max_bytes: Annotated[int, Field(ge=1), NUMBER] = 256 * 2**20
    max_pixels: Annotated[int, Field(ge=1), NUMBER] = 100_000_000
    draft: Switch = False

    @model_validator(mode="after")
    def _known_formats(self) -> "DecodeSettings":
        unknown = sorted({name.upper() for name in self.formats} - set(FORMATS))
        if unknown:
            problem = f"unknown format {unknown[0]}"
            raise Clash("formats", list(self.formats), f"{problem}; choose from {', '.join(FORMATS)}")
        return self


Channel = Annotated[float, Field(ge=-1000, le=1000), NUMBER]
Spread = Annotated[float, Field(gt=0, le=1000), NUMBER]
Name = Annotated[str, Field(min_length=1, max_length=64)]
Byte = Annotated[int, Field(ge=0, le=255), NUMBER]


class ModelSettings(Section):
    """Which network labels the pictures, and on which device.

    Attributes:
        tensorrt: whether TensorRT runs an ONNX network.
        input_size: pixels per side at which the network reads a picture.
        mean, deviation: of red, green and blue, on a scale of 0 to 1, as the network was trained.
        classes: a name for each class, in the order of their numbers; the first is background.
        palette: an RGB colour for each class, or None for the usual ones.
    """

    weights: Folder | None = None
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda|cuda:\d+)$")] = "auto"
    precision: Literal["auto", "fp32", "bf16", "int8"] = "auto"
    channels_last: Switch = True
    tensorrt: Switch = False
    input_size: Annotated[int, Field(ge=32, le=4096), NUMBER] = MODEL_SIDE
    mean: tuple[Channel, Channel, Channel] = IMAGENET_MEAN
    deviation: tuple[Spread, Spread, Spread] = IMAGENET_DEVIATION
    classes: Annotated[tuple[Name, ...], Field(min_length=2, max_length=256)] = PART_NAMES
    palette: tuple[tuple[Byte, Byte, Byte], ...] | None = None

    @model_validator(mode="after")
    def _int8_where_it_is_computed(self) -> "ModelSettings":
        if self.precision == "int8" and not self.channels_last:
            problem = "precision = int8 wants channels_last = true"
            raise Clash("precision", self.precision, f"{problem}; leave it so, or set auto")
        if self.precision == "int8" and self.device.startswith("cuda"):
            problem = f"precision = int8 is for a CPU, and device is {self.device}"
            raise Clash("precision", self.precision, f"{problem}; set auto")
        return self

    @model_validator(mode="after")
    def _tensorrt_where_there_may_be_a_gpu(self) -> "ModelSettings":
        if self.tensorrt and self.device == "cpu":
            problem = "tensorrt = true is for a GPU, and device is cpu"
            raise Clash("tensorrt", self.tensorrt, f"{problem}; set one of them otherwise")
        return self

    @model_validator(mode="after")
    def _one_name_and_colour_a_class(self) -> "ModelSettings":
        if len(set(self.classes)) != len(self.classes):
            problem = "a class is named twice"
            raise Clash("classes", list(self.classes), f"{problem}; give each a name of its own")
        if self.palette is not None and len(self.palette) != len(self.classes):
            problem = f"{len(self.palette)} colours for {len(self.classes)} classes"
            remedy = "give one [red, green, blue] for each class, or leave palette out"
            raise Clash("palette", [list(colour) for colour in self.palette], f"{problem}; {remedy}")
        return self

    @property
    def colours(self) -> tuple[Colour, ...]:
        """An RGB colour for each class."""
        return self.palette or palette_of(len(self.classes))


class WorkerSettings(Section):
    """How many processes, slots and threads; ``auto`` follows the machine."""

    preprocess: Annotated[int, Field(ge=1, le=256), NUMBER] | Auto = "auto"
    save: Annotated[int, Field(ge=1, le=256), NUMBER] | Auto = "auto"
    infer: Annotated[int, Field(ge=1, le=64), NUMBER] | Auto = "auto"
    inference_threads: Annotated[int, Field(ge=1, le=1024), NUMBER] | Auto = "auto"
    slots: Annotated[int, Field(ge=1, le=4096), NUMBER] | Auto = "auto"
    max_batch: Annotated[int, Field(ge=1, le=512), NUMBER] | Auto = "auto"
    max_wait_ms: Annotated[float, Field(ge=0, le=10_000), NUMBER] = 5.0
    max_attempts: Annotated[int, Field(ge=1, le=1000), NUMBER] = 3
    stage_timeout_s: Annotated[float, Field(ge=0.1, le=86_400), NUMBER] = 120.0
    start_timeout_s: Annotated[float, Field(ge=0.1, le=86_400), NUMBER] = 300.0

    @model_validator(mode="before")
    @classmethod
    def _all_auto(cls, given: Any) -> Any:
        """``workers = "auto"`` in place of the table."""
        return {} if given == "auto" else given


class SaveSettings(Section):
    """What is written for each picture."""

    outputs: Annotated[tuple[Output, ...], Field(min_length=1)] = ("face",)
    keep: Annotated[tuple[str, ...], Field(min_length=1)] = ARTICLE_PARTS
    format: Format = "jpeg"
    quality: Annotated[int, Field(ge=1, le=100), NUMBER] = 95
    metadata: tuple[Metadata, ...] = ("exif", "icc")
    suffix: dict[Output, Annotated[str, Field(max_length=64, pattern=r"^[^/\x00]*$")]] = {
        "face": "",
        "model": ".model",
        "cutout": ".cutout",
        "labels": ".labels",
        "overlay": ".overlay",
        "json": "",
    }

    @model_validator(mode="after")
    def _each_output_once(self) -> "SaveSettings":
        if len(set(self.outputs)) != len(self.outputs):
            raise Clash("outputs", list(self.outputs), "an output is named twice; name each once")
        taken: set[str] = set()
        for output in self.outputs:
            tail = self.suffix_of(output) + self.extension_of(output)
            if tail in taken:
                problem = f"{output} would have the name of another output, NAME{tail}"
                raise Clash("suffix", self.suffix, f"{problem}; give each a suffix of its own")
            taken.add(tail)
        return self

    @property
    def wants_certainty(self) -> bool:
        """Whether results say how sure the network is of its labels, as sidecars do."""
        return "json" in self.outputs

    def format_of(self, output: ImageOutput) -> Format:
        """The format of an output: labels need a palette, a cut-out needs transparency."""
        if output == "labels" or (output == "cutout" and self.format == "jpeg"):
            return "png"
        return self.format

    def extension_of(self, output: Output) -> str:
        return SIDECAR_ENDING if output == "json" else EXTENSION[self.format_of(output)]

    def suffix_of(self, output: Output) -> str:
        """The configured suffix, or the default one where the table leaves it out."""
        default = SaveSettings.model_fields["suffix"].default
        return str(self.suffix.get(output, default[output]))


class FaceSettings(Section):
    """The second look at faces that are small in their picture."""

    locate: Literal["off", "auto", "on"] = "auto"
    most: Annotated[int, Field(ge=1, le=64), NUMBER] = 6


class DrainSettings(Section):
    """How the daemon ends."""

    drain_timeout_s: Annotated[float, Field(ge=0, le=86_400), NUMBER] = 60.0


class HealthSettings(Section):
    """The file that says how the daemon is doing."""

    file: Folder | None = None
    interval_s: Annotated[float, Field(ge=0.1, le=3600), NUMBER] = 1.0


class MetricsSettings(Section):
    """Metrics for Prometheus; none unless a file or a port is given."""

    file: Folder | None = None
    port: Annotated[int, Field(ge=1, le=65_535), NUMBER] | None = None

    @property
    def is_wanted(self) -> bool:
        return self.file is not None or self.port is not None


class LogSettings(Section):
    """What is logged, how and where; ``auto`` is the journal's own form under systemd, else text."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "text", "json"] = "auto"
    file: Folder | None = None


class Settings(Section):
    """The whole configuration, checked for consistency; folders and weights are checked separately."""

    folders: FolderSettings
    watch: WatchSettings = WatchSettings()
    decode: DecodeSettings = DecodeSettings()
    model: ModelSettings = ModelSettings()
    workers: WorkerSettings = WorkerSettings()
    save: SaveSettings = SaveSettings()
    face: FaceSettings = FaceSettings()
    drain: DrainSettings = DrainSettings()
    health: HealthSettings = HealthSettings()
    metrics: MetricsSettings = MetricsSettings()
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _kept_classes_exist(self) -> "Settings":
        for name in self.save.keep:
            if name not in self.model.classes:
                remedy = f"choose from {', '.join(self.model.classes)}"
                problem = f"names {name!r}, which is no class"
                raise Clash("save.keep", list(self.save.keep), f"{problem}; {remedy}")
        return self

    @property
    def views(self) -> int:
        """The most faces of one picture that are looked at again; 0 if none are."""
        knows_faces = set(FACE_PARTS) <= set(self.model.classes)
        return self.face.most if self.face.locate != "off" and knows_faces else 0

    @model_validator(mode="after")
    def _faces_can_be_found(self) -> "Settings":
        missing = [name for name in FACE_PARTS if name not in self.model.classes]
        if self.face.locate == "on" and missing:
            problem = f"face.locate is on, but model.classes has no {missing[0]!r}"
            raise Clash("model.classes", list(self.model.classes), f"{problem}; set face.locate = off")
        return self

    @property
    def kept_labels(self) -> tuple[int, ...]:
        """Label numbers of the classes that are kept."""
        return tuple(label for label, name in enumerate(self.model.classes) if name in self.save.keep)

    @property
    def health_file(self) -> Path:
        return self.health.file or self.folders.inbox.parent / "health.json"

    def with_values(self, changes: dict[str, dict[str, Any]]) -> "Settings":
        """The same settings with some values replaced, by section and key."""
        merged = self.model_dump()
        for section, values in changes.items():
            merged[section].update(values)
        return Settings.model_validate(merged)
