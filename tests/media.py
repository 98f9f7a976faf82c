"""Small sound and image files, made here."""

import io
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image


def sound(samples: np.ndarray, rate: int = 16_000, kind: str = "WAV", subtype: str | None = None) -> bytes:
    """A sound file of samples [N] or [N, channels] between -1 and 1."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


def sine(hertz: float, seconds: float = 0.5, rate: int = 16_000) -> np.ndarray:
    return np.asarray(0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate), np.float32)


def picture(pixels: np.ndarray | Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """An image file of uint8 pixels [H, W] or [H, W, channels], or of a picture."""
    file = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(file, kind, **options)
    return file.getvalue()


def write(directory: Path, files: dict[str, bytes | str]) -> Path:
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return directory
