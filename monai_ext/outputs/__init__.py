"""What leaves the package: label volumes, pictures and tables."""

from monai_ext.outputs.label_map_writer import LabelMapWriter
from monai_ext.outputs.labels import write_labels
from monai_ext.outputs.overlay import overlay_png
from monai_ext.outputs.reconstruction_picture import reconstruction_picture
from monai_ext.outputs.reconstruction_writer import ReconstructionWriter

__all__ = ["LabelMapWriter", "ReconstructionWriter", "overlay_png", "reconstruction_picture", "write_labels"]
