"""Whether a PNG is as it was written: each chunk has a checksum, and Pillow compares only some of them."""

import struct
import zlib
from pathlib import Path

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PIECE = 1 << 20


def chunks_are_whole(path: Path) -> bool:
    """Return whether every chunk up to the last (IEND) is there and fits its checksum (PNG, third edition, 5.3)."""
    with path.open("rb") as stream:
        if stream.read(len(_SIGNATURE)) != _SIGNATURE:
            return False
        while len(head := stream.read(8)) == 8:
            left, kind = struct.unpack(">I4s", head)
            checksum = zlib.crc32(kind)
            # In pieces, for a damaged length may be gigabytes.
            while left and (piece := stream.read(min(left, _PIECE))):
                checksum = zlib.crc32(piece, checksum)
                left -= len(piece)
            if left or stream.read(4) != struct.pack(">I", checksum):
                return False
            if kind == b"IEND":
                return True
    return False
