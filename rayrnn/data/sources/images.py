"""Image files -> sequences of rows, patches or pixels, or of whole images, by Ray tasks that read many files each.

H height, W width, C channels, P a patch's side, T steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import ray.data

from rayrnn.data.rasters import SUFFIXES, Raster, symbols_of
from rayrnn.data.sources.media_files import Decoder, MediaFiles, find_media, read_media
from rayrnn.data.sources.source import Wanted
from rayrnn.data.vocabulary import BEGIN
from rayrnn.errors import DataError
from rayrnn.recipe.media_sections import ImageData
from rayrnn.wording import counted


class Images:
    """Image files, one a sequence, or with `frames` one a step."""

    section = ImageData

    def read(self, data: ImageData, wanted: Wanted) -> ray.data.Dataset:
        """Every sequence, read when the dataset is consumed; see `read_media`.

        Raises:
            DataError: there are no files, none can be used, or there are no labels for them.
            RecipeError: nothing says where labels are.
        """
        found = find_media(data, wanted, SUFFIXES, what="images", by_directory=data.frames)
        raster = raster_of(data)
        size, origin = (data.size, "data.size") if data.size is not None else _first_size(found, raster, data.on_error)
        _check_width(data, size, origin, wanted.num_columns)
        begins = data.levels is not None and wanted.needs.ahead > 0
        symbols = tuple(map(str, range(data.levels or 0)))
        decoder = Decoder(_Steps(raster, data, size, origin, begins), symbols=(*symbols, BEGIN) if begins else symbols)
        return read_media(found, data, wanted, decoder)


def raster_of(data: ImageData) -> Raster:
    """How the images of a section become pixels."""
    return Raster(data.num_channels, data.background, data.size)


@dataclass(frozen=True)
class _Steps:
    """Contents of image files -> the steps of one sequence."""

    raster: Raster
    data: ImageData
    #: height and width that every image has
    size: tuple[int, int]
    #: what has them, in messages
    origin: str
    #: whether a symbol stands before each row of pixels: so the first pixel is predicted, too, and rows do not slip
    begins: bool

    def __call__(self, contents: Sequence[bytes], names: Sequence[str]) -> np.ndarray:
        """Numbers [T, F] or, with levels, symbols [T]."""
        images = [self._read(content, name) for content, name in zip(contents, names, strict=True)]
        if self.data.frames:
            return np.stack(images).reshape(len(images), -1)
        (image_HWC,) = images
        height, width, channels = image_HWC.shape
        if self.data.levels is not None:
            rows = symbols_of(image_HWC, self.data.levels).reshape(height, -1)
            return (np.insert(rows, 0, self.data.levels, axis=1) if self.begins else rows).reshape(-1)
        if self.data.patch is not None:
            return _patches(image_HWC, self.data.patch)
        return image_HWC.reshape((height, width * channels) if self.data.steps == "rows" else (-1, channels))

    def _read(self, content: bytes, name: str) -> np.ndarray:
        pixels_HWC = self.raster.read(content, name)
        height, width = pixels_HWC.shape[:2]
        if (height, width) != self.size:
            raise DataError(
                f"{name} has {height} x {width} pixels (height x width), and {self.origin} has {self.size[0]} x "
                f"{self.size[1]}: set data.size, such as [{self.size[0]}, {self.size[1]}], to which all are resized"
            )
        if self.data.patch and (height % self.data.patch or width % self.data.patch):
            raise DataError(
                f"{name} has {height} x {width} pixels (height x width), which data.patch {self.data.patch} does not "
                "divide into whole patches: set data.size to multiples of it"
            )
        return pixels_HWC


def _first_size(found: MediaFiles, raster: Raster, on_error: str) -> tuple[tuple[int, int], str]:
    """Height and width of the first image that can be used, and its name.

    Raises:
        DataError: it cannot be used, or (data.on_error: skip) none can.
    """
    for number in range(len(found.listing)):
        try:
            content, name = found.read(number)
            height, width = raster.read(content, name).shape[:2]
            return (height, width), name
        except DataError:
            if on_error == "stop":
                raise
    raise DataError(f"none of the {len(found.listing)} images, such as {found.listing.names[0]}, can be used")


def _check_width(data: ImageData, size: tuple[int, int], origin: str, num_learned: int | None) -> None:
    """
    Raises:
        DataError: rows of pixels have another length than those that a model has learned.
    """
    num_numbers = size[1] * data.num_channels
    if data.steps == "rows" and not data.frames and num_learned not in (None, num_numbers):
        raise DataError(
            f"{origin} has rows of {counted(size[1], 'pixel')}, or {counted(num_numbers, 'number')}, and the rows that "
            f"were learned have {num_learned:,}: give images of that width, or train with data.size, to which all "
            "are resized"
        )


def _patches(image_HWC: np.ndarray, side: int) -> np.ndarray:
    """Squares of the image from left to right, then down: [patches, side * side * C]."""
    height, width, channels = image_HWC.shape
    grid = image_HWC.reshape(height // side, side, width // side, side, channels)
    return grid.swapaxes(1, 2).reshape(-1, side * side * channels)
