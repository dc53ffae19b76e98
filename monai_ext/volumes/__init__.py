"""Strict reading of scans, the volume store, preparing it, and phantoms."""

from monai_ext.volumes.body import Body, body_mask, find_body
from monai_ext.volumes.checks import SPACING_MM, check_affine, largest_shift_mm, spacing_of
from monai_ext.volumes.checksums import source_checksum
from monai_ext.volumes.dicom import DicomSeries, open_series
from monai_ext.volumes.dicom_quiet import quiet_pydicom
from monai_ext.volumes.found_inputs import PICTURE_ENDINGS, FoundInput, find_inputs
from monai_ext.volumes.found_scans import FoundScan, find_scans
from monai_ext.volumes.found_series import FoundSeries, find_series
from monai_ext.volumes.nifti_image import nifti_image
from monai_ext.volumes.phantoms import PHANTOM_LABELS, Phantom, phantom_torso, write_phantoms
from monai_ext.volumes.prepare import prepare
from monai_ext.volumes.prepare_summary import PrepareSummary
from monai_ext.volumes.read_back import check_read_back
from monai_ext.volumes.read_itk import affine_of_itk, quiet_itk
from monai_ext.volumes.read_picture import read_mask, read_picture
from monai_ext.volumes.read_scan import read_header, read_labels, read_scan
from monai_ext.volumes.reading_limits import reading_inside
from monai_ext.volumes.reading_pool import end_readers
from monai_ext.volumes.relaxing import RELAXABLE, check_relax
from monai_ext.volumes.scan import Scan, ScanHeader
from monai_ext.volumes.store import VolumeStore
from monai_ext.volumes.store_index import StoreIndex
from monai_ext.volumes.store_info import StoreInfo, store_info
from monai_ext.volumes.store_record import Origin, StoreRecord
from monai_ext.volumes.store_verify import Damage, StoreVerification, verify_store

__all__ = [
    "PHANTOM_LABELS",
    "PICTURE_ENDINGS",
    "RELAXABLE",
    "SPACING_MM",
    "Body",
    "Damage",
    "DicomSeries",
    "FoundInput",
    "FoundScan",
    "FoundSeries",
    "Origin",
    "Phantom",
    "PrepareSummary",
    "Scan",
    "ScanHeader",
    "StoreIndex",
    "StoreInfo",
    "StoreRecord",
    "StoreVerification",
    "VolumeStore",
    "affine_of_itk",
    "body_mask",
    "check_affine",
    "check_read_back",
    "check_relax",
    "end_readers",
    "find_body",
    "find_inputs",
    "find_scans",
    "find_series",
    "largest_shift_mm",
    "nifti_image",
    "open_series",
    "phantom_torso",
    "prepare",
    "quiet_itk",
    "quiet_pydicom",
    "read_header",
    "read_labels",
    "read_mask",
    "read_picture",
    "read_scan",
    "reading_inside",
    "source_checksum",
    "spacing_of",
    "store_info",
    "verify_store",
    "write_phantoms",
]
