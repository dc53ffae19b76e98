"""The header of every NIfTI that is written here: where the volume lies, said so that all readers find the same."""

import nibabel as nib
import numpy as np
import numpy.typing as npt

_SCANNER = 1  # NIFTI_XFORM_SCANNER_ANAT: mm of the patient as he lay in the scanner
_MM = 2  # NIFTI_UNITS_MM


def nifti_image(voxels: npt.NDArray[np.generic], affine: npt.NDArray[np.floating]) -> nib.Nifti1Image:
    """Return a NIfTI-1 image whose sform and qform are both set, in mm; nothing is written yet.

    Args:
        voxels: ``(x, y, z)``, in the type that the file shall have.
        affine: ``(4, 4)``, voxel index to mm in RAS+; of right angles, or the qform cannot say it, see
            ``check_affine``.
    """
    image = nib.Nifti1Image(voxels, affine)
    # Both forms with one code: readers that prefer either find the same place.
    image.set_sform(affine, _SCANNER)
    image.set_qform(affine, _SCANNER)
    image.header.set_xyzt_units(_MM)
    return image
