"""Whether an RLE frame holds exactly its values (PS3.5 G.3 to G.5): decoders drop what is too much, fill what lacks."""

import struct

_HEADER = 64  # bytes: the number of segments and 15 offsets


def is_whole_rle(frame: bytes, count: int, planes: int) -> bool:
    """Return whether each segment unpacks to one byte a value and to nothing more.

    Args:
        frame: the one fragment.
        count: values of the slice.
        planes: bytes of a value, each of which has a segment.
    """
    if len(frame) < _HEADER:
        return False
    segments, *offsets = struct.unpack("<16I", frame[:_HEADER])
    if segments != planes or offsets[0] != _HEADER or any(offsets[segments:]):
        return False
    ends = [*offsets[1:segments], len(frame)]
    return all(_unpacks_to(frame[start:end], count) for start, end in zip(offsets, ends, strict=False))


def _unpacks_to(segment: bytes, count: int) -> bool:
    place = found = 0
    while place < len(segment) and found < count:
        head = segment[place]
        if head < 128:  # so many bytes as they are, and one more
            found += head + 1
            place += head + 2
        elif head > 128:  # one byte many times
            found += 257 - head
            place += 2
        else:
            place += 1
    # A segment may end with one byte that makes its length even, and a frame with one more.
    return (
        found == count and place <= len(segment) and not segment[place:].strip(b"\x00\x80") and len(segment) - place < 3
    )
