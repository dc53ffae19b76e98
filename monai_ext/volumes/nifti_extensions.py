"""The bytes between a NIfTI header and its voxels: extensions, which must be as long as they say.

One that lies about its length may have been cut or joined with what follows, and libraries that read extensions
then look for the voxels elsewhere than those that skip them (nifti1.h, "NIFTI-1 HEADER EXTENSION").
"""

import struct

_FLAG = 4  # bytes, of which the first tells whether extensions follow
_HEAD = 8  # length and kind of an extension
_LEAST = 16  # bytes; what is shorter at the end is padding


def extensions_fit(between: bytes, order: str) -> bool:
    """Return whether the extensions, if there are any, fill the space that they have.

    Args:
        between: from the end of the header to the first voxel.
        order: ``"<"`` or ``">"``, the byte order of the header.
    """
    if not between[:1].strip(b"\x00") or len(between) == _FLAG:
        return True
    place = _FLAG
    while place == _FLAG or len(between) - place >= _LEAST:
        if place > _FLAG and not between[place:].strip(b"\x00"):
            break
        if len(between) - place < _HEAD:
            return False
        (size,) = struct.unpack_from(f"{order}i", between, place)
        if not _HEAD <= size <= len(between) - place:
            return False
        place += size
    return True
