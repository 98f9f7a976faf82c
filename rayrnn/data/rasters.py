"""Image files -> numbers of their pixels: what is no image, or only a part of one, is told.

H height, W width, C channels.
"""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageColor, ImageOps, UnidentifiedImageError

from rayrnn.data.contents import most_unpacked
from rayrnn.errors import DataError

#: Pillow's names of the formats that are read: pictures of pixels, none that runs a program
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
#: how the names of such files end
SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm", ".pnm")
#: bytes of a pixel while it is decoded
PIXEL_BYTES = 4
#: a tag of TIFF files, and what it says where 0 is white
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0
#: a pixel that is no number of 8 or 16 bits: nobody says what is black and what is white
_NO_RANGE = ("I", "F")


@dataclass(frozen=True)
class Raster:
    """How an image becomes pixels, the same for every image.

    Args:
        channels: 1 for grey, 3 for red, green and blue.
        background: what is seen through transparent pixels, as Pillow calls colours.
        size: height and width that the image is resized to; None leaves it as it is.
    """

    channels: int
    background: str = "white"
    size: tuple[int, int] | None = None

    def read(self, content: bytes, name: str) -> np.ndarray:
        """The pixels of an image file, turned as its EXIF data say: float32 [H, W, C] from 0 (black) to 1.

        Args:
            content: of the file, in one of FORMATS; which it is says its content, not its name.
            name: as the user would write it.

        Raises:
            DataError: it is no image, is cut off, is several, is larger than fits into memory, or has pixels without
                a range.
        """
        try:
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                _check(image, len(content), name)
                # of 16 bits Pillow keeps the numbers as they are, of 8 it turns them round
                reverse = getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == WHITE_IS_ZERO and image.mode.startswith("I")
                pixels_HWC = self._pixels(ImageOps.exif_transpose(image))
                pixels_HWC = 1 - pixels_HWC if reverse else pixels_HWC
        except DataError:
            raise
        except Image.DecompressionBombError as error:
            raise DataError(f"{name} is too large to be decoded: {error}") from None
        except UnidentifiedImageError:
            raise DataError(f"{name} is no image that can be read; what can be are {', '.join(FORMATS)}") from None
        except Exception as error:  # what a decoder raises of a broken file is not only OSError
            raise DataError(f"{name} is a broken image ({error}): mend it, or leave it out of data.path") from None
        return pixels_HWC if self.size is None else _resized(pixels_HWC, self.size)

    def _pixels(self, image: Image.Image) -> np.ndarray:
        if image.mode.startswith("I"):  # of 16 bits, see _check
            grey_HW = np.asarray(image, np.float32) / 65535
            return np.repeat(grey_HW[:, :, None], self.channels, axis=2)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            below = Image.new("RGBA", image.size, (*ImageColor.getrgb(self.background)[:3], 255))
            image = Image.alpha_composite(below, image)
        if self.channels == 3 or image.mode not in ("1", "L"):
            image = image.convert("RGB")
        pixels = np.asarray(image if self.channels == 3 else image.convert("L"), np.float32) / 255
        return pixels.reshape(image.height, image.width, self.channels)


def symbols_of(pixels_HWC: np.ndarray, levels: int) -> np.ndarray:
    """Each pixel as one of so many equal parts of 0 .. 1, row after row: int64 [H * W * C]."""
    return np.minimum((pixels_HWC.reshape(-1) * levels).astype(np.int64), levels - 1)


def image_of(symbols: np.ndarray, levels: int, shape: tuple[int, int, int]) -> np.ndarray:
    """The inverse: uint8 [H, W, C], the lowest level black and the highest white."""
    return np.round(symbols.reshape(shape) * (255 / (levels - 1))).astype(np.uint8)


def _check(image: Image.Image, size: int, name: str) -> None:
    """
    Raises:
        DataError: by its header the image is too large, several, or has pixels without a range.
    """
    pixels = image.width * image.height
    if pixels * PIXEL_BYTES > (most := most_unpacked(size)):
        raise DataError(
            f"{name} has {size:,} bytes and stands for {image.width:,} x {image.height:,} pixels, more than the "
            f"{most // PIXEL_BYTES:,} that are read: it is too large for this machine, or packed to be so"
        )
    # what a camera puts behind its photograph is a preview
    if image.format != "MPO" and (count := getattr(image, "n_frames", 1)) > 1:
        raise DataError(
            f"{name} has {count} images in it: save each as a file of its own (for a sequence of frames: all in one "
            "directory, with data.frames)"
        )
    if image.mode in _NO_RANGE and not _has_16_bits(image):
        raise DataError(
            f"{name} has pixels of 32 bits (Pillow's mode {image.mode}), and nothing says which number is white: save "
            "it with 8 or 16 bits"
        )


def _has_16_bits(image: Image.Image) -> bool:
    """Whether it is a PGM file of more than 8 bits, which Pillow brings to 16 in a mode of 32."""
    return image.format == "PPM" and image.mode == "I"


def _resized(pixels_HWC: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The same at another size, bilinear; where it becomes smaller, every pixel counts."""
    height, width = size
    if pixels_HWC.shape[:2] == size:
        return pixels_HWC
    channels = [
        np.asarray(Image.fromarray(channel_HW).resize((width, height), Image.Resampling.BILINEAR))
        for channel_HW in np.moveaxis(pixels_HWC, 2, 0)
    ]
    return np.asarray(np.clip(np.stack(channels, axis=2), 0, 1))
