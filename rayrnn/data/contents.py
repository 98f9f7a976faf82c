"""What is in one file of data: read whole and unpacked, within a bound; its encoding, and what it is if no text."""

import codecs
from posixpath import splitext

import numpy as np
import pyarrow as pa
from pyarrow import fs

from rayrnn.errors import DataError
from rayrnn.foreign import memory_bytes

#: of a packed file: what it gives may have so many times its bytes, or so many that it does not matter
MOST_UNPACKED_TIMES = 200
SMALL_BYTES = 2**28
#: read at once, first and at most
FIRST_PIECE_BYTES = 2**16
PIECE_BYTES = 2**24
#: by which the encoding of a text is told
SAMPLE_BYTES = 2**16
#: what the name of a file ends in that is unpacked while it is read -> how it is packed
_PACKED = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4"}
_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
#: of four bytes in a row, those that are 0 for letters of the first 256, and those that are not
_ZEROS = {
    "UTF-32LE": ((1, 2, 3), (0,)),
    "UTF-32BE": ((0, 1, 2), (3,)),
    "UTF-16LE": ((1, 3), (0, 2)),
    "UTF-16BE": ((0, 2), (1, 3)),
}
#: any text has some such letters: blanks, digits, line ends
_FEWEST_ZEROS = 0.01
_TAR = (257, b"ustar")
#: how other files than texts begin -> what they are, and what to do; of packed ones the ending by which they are read
_KINDS: dict[bytes, tuple[str, str]] = {
    b"\x1f\x8b": ("a gzip file", ".gz"),
    b"\x28\xb5\x2f\xfd": ("a zstd file", ".zst"),
    b"\x04\x22\x4d\x18": ("an lz4 file", ".lz4"),
    **{b"BZh%d1AY&SY" % level: ("a bzip2 file", ".bz2") for level in range(1, 10)},
    b"PK\x03\x04": ("a zip file, as an Excel workbook is", "unpack it, or save the workbook as CSV"),
    b"PK\x05\x06": ("a zip file, and empty", "see what should be in it"),
    b"\xfd7zXZ\0": ("an xz file", "unpack it"),
    b"7z\xbc\xaf\x27\x1c": ("a 7z file", "unpack it"),
    b"Rar!\x1a\x07": ("a RAR file", "unpack it"),
    b"PAR1\x15": ("a Parquet file", "set data.source: parquet, or save it as text"),
    b"ARROW1\0\0": ("an Arrow file", "save it as Parquet or as text"),
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": ("an Office file, as an old Excel workbook is", "save it as CSV or text"),
    b"SQLite format 3\0": ("an SQLite database", "save its table as CSV or Parquet"),
    b"%PDF-": ("a PDF file", "save its text as UTF-8"),
}


def read_whole(filesystem: fs.FileSystem, path: str, name: str) -> bytes:
    """The whole of one file, unpacked where its name ends in .gz, .bz2, .zst or .lz4, in letters of any case.

    Args:
        name: as the user would write it.

    Raises:
        DataError: it cannot be read, or is more than fits into memory or was packed to be.
    """
    packed = next((how for ending, how in _PACKED.items() if path.lower().endswith(ending)), None)
    try:
        with filesystem.open_input_file(path) as file:
            return _pieces(file if packed is None else pa.CompressedInputStream(file, packed), file.size(), name)
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error}") from None


def most_unpacked(size: int) -> int:
    """Bytes that a file of so many may become: more is not what people pack, or does not fit into memory."""
    return min(memory_bytes() // 2, max(SMALL_BYTES, MOST_UNPACKED_TIMES * size))


def charset_of(content: bytes) -> str | None:
    """The encoding, as iconv calls it, of a text that has NUL bytes or a mark in front of it; None for any other."""
    for mark, charset in _MARKS.items():
        if content.startswith(mark):
            return charset if _is(content, charset) else None
    start = np.frombuffer(content[:SAMPLE_BYTES], np.uint8)
    if not len(start) or start.all():
        return None
    nothing = [float(np.mean(start[place::4] == 0)) if len(start) > place else 0.0 for place in range(4)]
    for charset, (empty, full) in _ZEROS.items():
        share = min(nothing[place] for place in empty)
        if share > _FEWEST_ZEROS and share > 4 * max(nothing[place] for place in full) and _is(content, charset):
            return charset
    return None


def way_to_utf8(charset: str | None) -> str:
    """What to do about a text in this encoding, or in one that nobody can tell."""
    if charset is None:
        return "save it as UTF-8 (iconv -f ITS-ENCODING -t UTF-8)"
    return f"convert it (iconv -f {charset} -t UTF-8)"


def unpacked_name(name: str) -> str:
    """A file's name without the ending that says how it is packed."""
    stem, ending = splitext(name)
    return stem if ending.lower() in _PACKED else name


def no_text(content: bytes, name: str) -> str | None:
    """What a file is that is no text but of a kind that is known by how it begins, and what to do; None for others."""
    at, mark = _TAR
    kind, way = next((told for begins, told in _KINDS.items() if content.startswith(begins)), ("", ""))
    if content.startswith(mark, at):
        kind, way = "a tar file", "unpack it"
    if way.startswith("."):
        is_packed_twice = name.lower().endswith(tuple(_PACKED))
        way = "unpack it" if is_packed_twice else f"name it {name}{way}, or unpack it"
    return f"{name} {'holds' if name.lower().endswith(tuple(_PACKED)) else 'is'} {kind}: {way}" if kind else None


def _is(content: bytes, charset: str) -> bool:
    """Whether these bytes are text in this encoding; of the last letter a part is enough."""
    try:
        codecs.getincrementaldecoder(charset)().decode(content)
    except UnicodeDecodeError:
        return False
    return True


def _pieces(stream: pa.NativeFile, size: int, name: str) -> bytes:
    """
    Args:
        stream: what the file gives, which may be more than is in it.
        size: bytes in the file itself.

    Raises:
        DataError: it is more than fits into memory, or so much more than the file has that it was packed to be so.
    """
    most = most_unpacked(size)
    pieces, total = [], 0
    while piece := stream.read(min(PIECE_BYTES, max(FIRST_PIECE_BYTES, total))):
        pieces.append(piece)
        total += len(piece)
        if total > most:
            raise DataError(
                f"{name} has {size:,} bytes and gives more than {most:,}: it is too large for this machine, or packed "
                "to be so; unpack it, and cut it into several files"
            )
    return b"".join(pieces)
