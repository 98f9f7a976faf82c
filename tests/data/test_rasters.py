"""An image file becomes numbers of its pixels, and what is none is told; no Ray is needed."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image

from rayrnn.data.rasters import Raster, image_of, symbols_of
from rayrnn.errors import DataError
from tests.media import picture

GREY = Raster(1)
RGB = Raster(3)
#: two rows of three pixels
STAIRS = np.array([[0, 51, 102], [153, 204, 255]], np.uint8)
COLOURS = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
#: of ITU-R 601: what red, green and blue are as grey
LUMA = np.array([0.299, 0.587, 0.114])


def told(content: bytes, raster: Raster = GREY) -> str:
    with pytest.raises(DataError, match=r"^a\.png ") as fault:
        raster.read(content, "a.png")
    return str(fault.value)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "PPM", "WEBP"])
def test_whatever_the_format_the_pixels_are_the_same(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    found = GREY.read(picture(STAIRS, kind, **options), "a.png")
    assert (found.dtype, found.shape) == (np.float32, (2, 3, 1))
    np.testing.assert_allclose(found[:, :, 0], STAIRS / 255, atol=1e-6)


def test_a_pgm_file_of_16_bits_is_read_whole() -> None:
    file = b"P5 3 2 65535\n" + (STAIRS.astype(">u2") * 257).tobytes()
    np.testing.assert_allclose(GREY.read(file, "a.pgm")[:, :, 0], STAIRS / 255, atol=1e-6)


def test_colours_become_grey_by_their_brightness_and_grey_has_three_equal_colours() -> None:
    np.testing.assert_allclose(GREY.read(picture(COLOURS), "a.png")[0, :, 0], LUMA, atol=0.01)
    np.testing.assert_allclose(RGB.read(picture(COLOURS), "a.png"), COLOURS / 255, atol=1e-6)
    np.testing.assert_allclose(RGB.read(picture(STAIRS), "a.png"), np.repeat(STAIRS[:, :, None], 3, 2) / 255, atol=1e-6)


def test_sixteen_bits_a_pixel_keep_what_eight_do_not_hold() -> None:
    deep = np.array([[0, 1, 32768], [257, 65534, 65535]], np.uint16)
    found = GREY.read(picture(Image.fromarray(deep)), "a.png")
    np.testing.assert_allclose(found[:, :, 0], deep / 65535, atol=1e-7)
    assert RGB.read(picture(Image.fromarray(deep)), "a.png").shape == (2, 3, 3)


def test_a_tiff_file_of_16_bits_whose_white_is_0_is_turned_round() -> None:
    file = io.BytesIO()
    Image.fromarray(np.array([[0, 13107, 65535]], np.uint16)).save(file, "TIFF", tiffinfo={262: 0})
    with Image.open(io.BytesIO(file.getvalue())) as image:
        assert (image.mode, image.tag_v2[262]) == ("I;16", 0)
    np.testing.assert_allclose(Raster(1).read(file.getvalue(), "x")[0, :, 0], [1, 0.8, 0], atol=1e-4)


def test_a_palette_a_bit_a_pixel_and_the_inks_of_a_printer_are_read_as_what_they_show() -> None:
    palette = Image.fromarray(COLOURS).convert("P", palette=Image.Palette.ADAPTIVE)
    np.testing.assert_allclose(RGB.read(picture(palette), "a.png"), COLOURS / 255, atol=0.01)
    bits = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1")
    assert GREY.read(picture(bits), "a.png").reshape(-1).tolist() == [0, 1]
    inks = Image.new("CMYK", (8, 8), (0, 255, 255, 0))  # magenta and yellow: red
    np.testing.assert_allclose(RGB.read(picture(inks, "JPEG"), "a.png")[4, 4], [1, 0, 0], atol=0.03)


@pytest.mark.parametrize(("background", "seen"), [("white", 1.0), ("black", 0.0), ("#808080", 128 / 255)])
def test_transparent_pixels_show_the_background(background: str, seen: float) -> None:
    pixels = np.array([[[0, 0, 0, 0], [255, 255, 255, 255]]], np.uint8)
    found = Raster(1, background).read(picture(pixels), "a.png")
    np.testing.assert_allclose(found.reshape(-1), [seen, 1.0], atol=0.01)
    grey = Image.fromarray(np.array([[[0, 0], [0, 255]]], np.uint8), "LA")
    np.testing.assert_allclose(Raster(1, background).read(picture(grey), "a.png").reshape(-1), [seen, 0], atol=0.01)


def test_a_photograph_is_turned_as_its_camera_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    lying = picture(STAIRS, "PNG", exif=exif)
    found = GREY.read(lying, "a.png")
    np.testing.assert_allclose(found[:, :, 0] * 255, np.rot90(STAIRS, -1), atol=1e-3)


def test_resized_downwards_every_pixel_counts() -> None:
    checks = np.indices((8, 8)).sum(axis=0) % 2 * 255
    found = Raster(1, size=(2, 4)).read(picture(checks.astype(np.uint8)), "a.png")
    assert found.shape == (2, 4, 1)
    np.testing.assert_allclose(found, 0.5, atol=0.1)


def test_levels_are_equal_parts_from_black_to_white_and_back_again() -> None:
    pixels = np.array([[[0.0], [0.24]], [[0.5], [1.0]]], np.float32)
    symbols = symbols_of(pixels, 4)
    assert symbols.tolist() == [0, 0, 2, 3]
    assert image_of(symbols, 4, (2, 2, 1)).reshape(-1).tolist() == [0, 0, 170, 255]
    assert symbols_of(pixels, 2).tolist() == [0, 0, 1, 1]


def bomb() -> bytes:
    """A PNG of 40,000 x 40,000 pixels in a few bytes: nobody decodes it to find out."""

    def chunk(name: bytes, content: bytes) -> bytes:
        check = zlib.crc32(name + content).to_bytes(4, "big")
        return len(content).to_bytes(4, "big") + name + content + check

    header = (40_000).to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


def large() -> bytes:
    """Less than what Pillow calls a bomb, and more than its few bytes should become."""
    return picture(Image.new("1", (12_000, 7_000)))


def animation() -> bytes:
    file = io.BytesIO()
    first, second = Image.fromarray(STAIRS), Image.fromarray(STAIRS[::-1].copy())
    first.save(file, "GIF", save_all=True, append_images=[second])
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a text among images\n", "is no image that can be read; what can be are PNG, JPEG"),
        (picture(STAIRS)[:50], "a.png is "),
        (picture(np.zeros((64, 64), np.uint8) + np.arange(64, dtype=np.uint8) % 7, "JPEG")[:-200], "is a broken image"),
        (picture(STAIRS)[:50] + b"\0\0\0\0" + picture(STAIRS)[54:], "is a broken image"),
        (bomb(), "is too large to be decoded"),
        (large(), "stands for 12,000 x 7,000 pixels, more than the"),
        (animation(), "has 2 images in it: save each as a file of its own"),
        (picture(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF"), "pixels of 32 bits (Pillow's mode F)"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is no image that can be read"),
    ],
)
def test_what_is_no_image_or_a_part_of_one_is_told(content: bytes, says: str) -> None:
    assert says in told(content)
