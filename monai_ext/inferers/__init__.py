"""Running a network over a whole scan."""

from monai_ext.inferers.mirrored import MirroredSlidingWindow

__all__ = ["MirroredSlidingWindow"]
