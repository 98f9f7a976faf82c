"""Images that a language model over pixels draws, from nothing or from the upper part of one; many on one sheet.

N images, H height, W width, C channels.
"""

import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from rayrnn.data.files import list_files, read_bytes
from rayrnn.data.rasters import image_of, symbols_of
from rayrnn.data.sources.images import raster_of
from rayrnn.errors import UsageError
from rayrnn.generation import Drawing, generate
from rayrnn.prediction.destination import Destination, open_destination
from rayrnn.recipe.media_sections import ImageData
from rayrnn.runs.directory import Run

#: bytes of a sheet before it is packed
MOST_BYTES = 2**30
#: of a sheet: pixels of its side that are pleasant to look at, of an image's pixel at most, and between two images
PLEASANT_SIDE = 1200
LARGEST_PIXEL = 8
GAP = 2
#: of the gaps, between black and white
GREY = 128


@dataclass(frozen=True)
class Begun:
    """An image of which the first rows are given.

    Args:
        path: of the image file, which is read as the run's own images were.
        keep: rows that are given; None is half of them.
    """

    path: str
    keep: int | None = None


def draw_sheet(
    run: Run,
    to: str | Path,
    *,
    samples: int,
    drawing: Drawing,
    seed: int | None = None,
    begun: Begun | None = None,
) -> tuple[int, int]:
    """Draw images and write them to a new PNG file, side by side.

    Returns:
        rows and columns of the sheet.

    Raises:
        UsageError: the run has learned no pixels; a number is out of range; or the file is there already.
        DataError: the image to begin with cannot be used, or the file cannot be written.
    """
    data = _pixels_of(run)
    destination = open_destination(str(to), suffixes=(".png",), endpoint=data.endpoint, option="--to")
    images_NHWC = draw_images(run, samples=samples, drawing=drawing, seed=seed, begun=begun)
    return write_sheet(images_NHWC, destination)


def draw_images(
    run: Run, *, samples: int, drawing: Drawing, seed: int | None = None, begun: Begun | None = None
) -> np.ndarray:
    """Draw images, all at once: uint8 [N, H, W, C], black to white.

    Raises:
        UsageError: the run has learned no pixels, or a number is out of range.
        DataError: the image to begin with cannot be used.
    """
    data = _pixels_of(run)
    assert data.size is not None
    assert data.levels is not None
    height, width = data.size
    shape = (height, width, data.num_channels)
    if samples * math.prod(shape) > MOST_BYTES:
        raise UsageError(f"--samples is {samples}: so many images of {height} x {width} pixels fit on no sheet")
    given = _given(begun, data)
    pieces = generate(
        run,
        prime=" ".join(given),
        length=math.prod(shape) - len(given),
        samples=samples,
        drawing=drawing,
        seed=seed,
    )
    symbols = [np.array("".join(drawn).split(), np.int64) for drawn in zip(*pieces, strict=True)]
    return np.stack([image_of(image, data.levels, shape) for image in symbols])


def write_sheet(images_NHWC: np.ndarray, destination: Destination) -> tuple[int, int]:
    """Write images as one PNG file: a grid that is nearly square, its pixels as large as is pleasant to look at.

    Returns:
        rows and columns.

    Raises:
        DataError: it cannot be written.
    """
    content, grid = png_of(images_NHWC)
    with destination.unfinished() as stream:
        stream.write(content)
    return grid


def png_of(images_NHWC: np.ndarray) -> tuple[bytes, tuple[int, int]]:
    """The same sheet as a PNG file's content; and the grid's rows and columns."""
    sheet, grid = sheet_of(images_NHWC)
    file = io.BytesIO()
    Image.fromarray(sheet).save(file, "PNG")
    return file.getvalue(), grid


def sheet_of(images_NHWC: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """One image of all, uint8 [.., ..] or [.., .., 3], row after row of the grid; and the grid's rows and columns."""
    count, height, width, channels = images_NHWC.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    scale = max(1, min(LARGEST_PIXEL, PLEASANT_SIDE // (columns * width), PLEASANT_SIDE // (rows * height)))
    step_down, step_right = height * scale + GAP, width * scale + GAP
    sheet = np.full((rows * step_down + GAP, columns * step_right + GAP, channels), GREY, np.uint8)
    for number, image_HWC in enumerate(images_NHWC):
        top, left = GAP + number // columns * step_down, GAP + number % columns * step_right
        enlarged = image_HWC.repeat(scale, axis=0).repeat(scale, axis=1)
        sheet[top : top + height * scale, left : left + width * scale] = enlarged
    return (sheet[:, :, 0] if channels == 1 else sheet), (rows, columns)


def _pixels_of(run: Run) -> ImageData:
    """
    Raises:
        UsageError: the run has learned no symbols that are pixels.
    """
    data = run.recipe.data
    if not (isinstance(data, ImageData) and data.levels is not None):
        raise UsageError(
            f"{run.name} has learned no pixels (data.source is {data.source}), and --to writes images: leave it out, "
            "or give a run of a recipe with data.as: pixels and data.levels, such as pixels"
        )
    return data


def _given(begun: Begun | None, data: ImageData) -> list[str]:
    """The symbols of an image's first rows.

    Raises:
        UsageError: there are not so many rows, or the path names several files.
        DataError: it is no image.
    """
    if begun is None:
        return []
    assert data.size is not None
    assert data.levels is not None
    height = data.size[0]
    keep = height // 2 if begun.keep is None else begun.keep
    if not 0 <= keep <= height:
        raise UsageError(f"--keep is {keep}, and an image has {height} rows: it must be 0 to {height}")
    listing = list_files(begun.path, endpoint=data.endpoint)
    if len(listing) != 1:
        raise UsageError(f"--prime is {begun.path}, which is {len(listing):,} files: give one image")
    pixels_HWC = raster_of(data).read(read_bytes(listing, 0), listing.names[0])
    return [str(symbol) for symbol in symbols_of(pixels_HWC[:keep], data.levels)]
