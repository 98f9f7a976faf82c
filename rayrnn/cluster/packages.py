"""What is installed on the hosts: this very rayrnn as a wheel, and the packages that it needs."""

import base64
import hashlib
import importlib.util
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution, version
from pathlib import Path

from rayrnn.cluster.programs import sources_on_hosts

#: files with the same content make the same wheel
ALWAYS = (1980, 1, 1, 0, 0, 0)
#: what the extras fast, audio, images, delta, iceberg, avro and sql bring
EXTRAS = ("numba", "soundfile", "pillow", "deltalake", "pyiceberg", "fastavro", "sqlalchemy")
LEFT_OUT = {"__pycache__", "RECORD", "direct_url.json", "INSTALLER", "REQUESTED"}


def packages_for_hosts() -> tuple[str, ...]:
    """As pip takes them: Ray, of the extras what this machine has, and what programs of sources need."""
    here = (f"{name}=={found}" for name in ("ray", *EXTRAS) if (found := installed(name)) is not None)
    return (*here, *(package for source in sources_on_hosts() for package in source.packages()))


def installed(name: str) -> str | None:
    """The version that this machine has."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def build_wheel(folder: Path) -> tuple[Path, str]:
    """Write the wheel of this very rayrnn, edited or released.

    Returns:
        its path, and a name for its content.
    """
    ours = distribution("rayrnn")
    files = dict(sorted([*_packages(ours), *_about(ours)]))
    build = hashlib.sha256(b"".join(name.encode() + data for name, data in files.items())).hexdigest()[:12]
    path = folder / f"rayrnn-{ours.version}-py3-none-any.whl"
    record = f"rayrnn-{ours.version}.dist-info/RECORD"
    lines = [f"{name},sha256={_digest(data)},{len(data)}\n" for name, data in files.items()]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, data in {**files, record: "".join([*lines, f"{record},,\n"]).encode()}.items():
            wheel.writestr(zipfile.ZipInfo(name, ALWAYS), data, zipfile.ZIP_DEFLATED)
    return path, build


def _packages(ours: Distribution) -> Iterator[tuple[str, bytes]]:
    """rayrnn itself, and its plugins where they are installed."""
    names = {"rayrnn", *(point.value.partition(".")[0].partition(":")[0] for point in ours.entry_points)}
    for name in names:
        found = importlib.util.find_spec(name)
        for folder in (found.submodule_search_locations or []) if found else []:
            root = Path(folder)
            yield from ((f"{name}/{inner}", data) for inner, data in _files(root))


def _about(ours: Distribution) -> Iterator[tuple[str, bytes]]:
    folder = Path(str(ours.locate_file(f"rayrnn-{ours.version}.dist-info")))
    yield from ((f"{folder.name}/{inner}", data) for inner, data in _files(folder))


def _files(root: Path) -> Iterator[tuple[str, bytes]]:
    for path in root.rglob("*"):
        if path.is_file() and not LEFT_OUT & set(path.relative_to(root).parts):
            yield path.relative_to(root).as_posix(), path.read_bytes()


def _digest(data: bytes) -> str:
    """As a wheel's RECORD wants it."""
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
