"""What leaves the package: label volumes, maps of anomaly, pictures and tables."""

from monai_ext.outputs.anomaly_writer import AnomalyWriter, CaseResult
from monai_ext.outputs.candidates import Candidate, candidate_level, find_candidates
from monai_ext.outputs.dicom_beside import check_referable
from monai_ext.outputs.dicom_heat_map import write_heat_map
from monai_ext.outputs.dicom_report import write_lesion_report
from monai_ext.outputs.dicom_seg import write_dicom_seg
from monai_ext.outputs.dicom_seg_reading import read_dicom_seg
from monai_ext.outputs.label_map_writer import LabelMapWriter
from monai_ext.outputs.labels import write_labels
from monai_ext.outputs.overlay import overlay_png
from monai_ext.outputs.reconstruction_picture import reconstruction_picture
from monai_ext.outputs.reconstruction_writer import ReconstructionWriter

__all__ = [
    "AnomalyWriter",
    "Candidate",
    "CaseResult",
    "LabelMapWriter",
    "ReconstructionWriter",
    "candidate_level",
    "check_referable",
    "find_candidates",
    "overlay_png",
    "read_dicom_seg",
    "reconstruction_picture",
    "write_dicom_seg",
    "write_heat_map",
    "write_labels",
    "write_lesion_report",
]
