"""Running a network over a whole scan or picture."""

from monai_ext.inferers.mirrored import MirroredSlidingWindow
from monai_ext.inferers.slice_localizer import Localized, SliceLocalizer

__all__ = ["Localized", "MirroredSlidingWindow", "SliceLocalizer"]
