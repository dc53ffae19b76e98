"""A frame for every segment of a DICOM SEG, so that viewers find each one that is described."""

import copy

from pydicom.dataset import Dataset


def add_empty_frames(seg: Dataset) -> None:
    """Give each segment without a voxel one empty frame, in place, on the slice of the first frame.

    A segment may be described and have no frame (PS3.3 C.8.20), but OHIF 3.10 then refuses the whole file.

    Args:
        seg: binary, uncompressed, each frame with its own segment number as the first of its dimension indices.
    """
    if len(seg.SegmentSequence) == 1:
        return  # which has a frame, and newer versions of highdicom say for all frames at once whose they are
    frames = seg.PerFrameFunctionalGroupsSequence
    shown = {int(frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber) for frame in frames}
    absent = [int(item.SegmentNumber) for item in seg.SegmentSequence if int(item.SegmentNumber) not in shown]
    # Bits follow one another without a gap between frames (PS3.5 8.1.1); newer highdicom leaves some behind the last.
    frame_bits = int(seg.Rows) * int(seg.Columns)
    used, rest = divmod(len(frames) * frame_bits, 8)
    pixels = bytes(seg.PixelData[:used])
    if rest:
        pixels += bytes([seg.PixelData[used] & (1 << rest) - 1])
    for number in absent:
        frame = copy.deepcopy(frames[0])
        frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber = number
        _, *place = frame.FrameContentSequence[0].DimensionIndexValues
        frame.FrameContentSequence[0].DimensionIndexValues = [number, *place]
        frames.append(frame)
    seg.NumberOfFrames = len(frames)
    size = -(-len(frames) * frame_bits // 8)
    seg.PixelData = pixels.ljust(size + size % 2, b"\0")
