"""The recipe's `data` section for files that no table holds: sounds and images."""

import re
from typing import Annotated, ClassVar, Literal

import pydantic
from pydantic import Field

from rayrnn.recipe.data_sections import StepData, TargetUnits, check_held_out_answers, spelled

#: pixels of an image's side
Side = Annotated[int, Field(gt=0, le=100_000)]


class MediaData(TargetUnits, StepData):
    """Files whose labels stand in a file of their own, or in their names."""

    file_keys: ClassVar[tuple[str, ...]] = (
        *("path", "held_out", "labels", "held_out_labels", "targets", "held_out_targets"),
    )
    in_order: ClassVar[bool] = False

    #: files, directories or glob patterns: local, s3://, gs:// or hdfs://
    path: str | tuple[str, ...]
    #: one CSV of `file name,label` lines; one that ends in .tsv has a tabulator between the two
    labels: str | None = None
    #: the same for the sequences of `held_out`, where that is a path of its own: labels are never taken from other data
    held_out_labels: str | None = None
    #: a regular expression with one group, the label; it is searched in the path below the directory that `path` names:
    #: `^([^/]+)/` for a directory a class, `^(\d)_` for names that begin with a digit
    label_pattern: str | None = None
    #: one CSV of `file name,target text` lines, where the target is a text of its own length; .tsv as for `labels`
    targets: str | None = None
    #: the same for the sequences of `held_out`, where that is a path of its own
    held_out_targets: str | None = None
    #: what a file that cannot be used does: end the run, or be left out and listed in the run directory
    on_error: Literal["stop", "skip"] = "stop"

    @property
    def content(self) -> str:
        """The column of the row schema that holds the steps."""
        return "values"

    @pydantic.field_validator("label_pattern")
    @classmethod
    def _has_one_group(cls, pattern: str | None) -> str | None:
        if pattern is None:
            return None
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"it is no regular expression: {error}") from None
        if groups != 1:
            raise ValueError(f"it has {groups} groups, and one is due: the label; ^([^/]+)/ is the first directory")
        return pattern

    @pydantic.model_validator(mode="after")
    def _one_origin_of_labels(self) -> "MediaData":
        if self.labels is not None and self.label_pattern is not None:
            raise ValueError("give data.labels or data.label_pattern, one of the two")
        check_held_out_answers(self)
        return self


class AudioData(MediaData):
    """Sounds (wav, flac, ogg and what else libsndfile reads): one file is one sequence, one frame of a log-mel
    spectrogram is one step. Several channels become their mean. Needs `pip install 'rayrnn[audio]'`."""

    source: Literal["audio"] = "audio"
    #: samples a second; what was recorded at another rate is resampled
    rate: int = Field(16_000, gt=0, le=768_000)
    #: bands of the mel scale, from 0 Hz to half the rate: the numbers of a step
    mels: int = Field(40, gt=0, le=1_000)
    #: milliseconds of sound that one step looks at
    window: float = Field(25.0, gt=0, le=10_000)
    #: milliseconds from one step to the next
    hop: float = Field(10.0, gt=0, le=10_000)
    #: fitted once over the training part, kept with the run
    normalize: Literal["none", "standardize", "min_max"] = "standardize"

    @pydantic.model_validator(mode="after")
    def _has_samples(self) -> "AudioData":
        for key in ("window", "hop"):
            if getattr(self, key) * self.rate < 2000:
                raise ValueError(
                    f"data.{key} is {getattr(self, key):g} ms, less than 2 samples at data.rate {self.rate}: "
                    "make it longer"
                )
        return self


class ImageData(MediaData):
    """Images (png, jpeg, gif, bmp, tiff, webp, ppm): one file is one sequence, or with `frames` one directory. Needs
    `pip install 'rayrnn[images]'`."""

    model_config = pydantic.ConfigDict(serialize_by_alias=True)

    source: Literal["images"] = "images"
    #: what a step is: a row of pixels from left to right, a square patch (row after row of patches), or a pixel (row
    #: after row of pixels)
    steps: Literal["rows", "patches", "pixels"] = Field("rows", alias="as")
    #: with `as: patches`: pixels of a patch's side
    patch: Side | None = None
    #: with `as: pixels`: every pixel is one of so many symbols, from "0" (black) on; for rgb three, one after the other
    levels: Annotated[int, Field(ge=2, le=256)] | None = None
    #: a directory of images is one sequence, in the order of their names (2.png before 10.png), and an image of `size`
    #: one step
    frames: bool = False
    #: [height, width] that every image is resized to; without it each must have the size of the first
    size: tuple[Side, Side] | None = None
    #: `grey` has one number a pixel, `rgb` three
    channels: Literal["grey", "rgb"] = "grey"
    #: what is seen through transparent pixels: white, black or #rrggbb
    background: Annotated[str, spelled("white|black|#[0-9a-fA-F]{6}", "white, black or #rrggbb")] = "white"

    @property
    def num_channels(self) -> int:
        """Numbers a pixel."""
        return 3 if self.channels == "rgb" else 1

    @property
    def content(self) -> str:
        return "symbols" if self.levels else "values"

    @property
    def begin_every(self) -> int:
        return self.size[1] * self.num_channels if self.levels is not None and self.size is not None else 0

    @property
    def step_shape(self) -> tuple[int, int, int] | None:
        if self.frames:
            assert self.size is not None
            return (*self.size, self.num_channels)
        return (self.patch, self.patch, self.num_channels) if self.patch else None

    @pydantic.model_validator(mode="after")
    def _one_kind_of_step(self) -> "ImageData":
        if (self.patch is not None) != (self.steps == "patches"):
            raise ValueError("data.patch goes with data.as: patches; give both, or neither")
        if self.levels is not None and self.steps != "pixels":
            raise ValueError("data.levels goes with data.as: pixels; with rows and patches a step is numbers")
        if self.levels is not None and self.size is None:
            raise ValueError("data.levels needs data.size, [height, width], so that what is drawn is an image again")
        if self.frames and self.steps != "rows":
            raise ValueError(f"with data.frames every image is one step: leave data.as: {self.steps} out")
        if self.frames and self.size is None:
            raise ValueError("data.frames needs data.size, [height, width]: frames of any size are resized to it")
        if self.patch and self.size and any(side % self.patch for side in self.size):
            height, width = self.size
            raise ValueError(
                f"data.patch {self.patch} does not divide data.size [{height}, {width}] into whole patches"
            )
        return self
