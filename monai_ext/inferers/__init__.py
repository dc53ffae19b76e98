"""Running a network over a whole scan or picture."""

from monai_ext.inferers.bricks import BrickInferer
from monai_ext.inferers.mirrored import MirroredSlidingWindow
from monai_ext.inferers.segmenting import Segmented, segment, segment_to_file
from monai_ext.inferers.slice_localizer import Localized, SliceLocalizer

__all__ = [
    "BrickInferer",
    "Localized",
    "MirroredSlidingWindow",
    "Segmented",
    "SliceLocalizer",
    "segment",
    "segment_to_file",
]
