"""From a file, through the chain of inference, to a label file that third parties find on the scan's grid."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd

from monai_ext.outputs import LabelMapWriter
from monai_ext.transforms import load_ct
from monai_ext.volumes import affine_of_itk

NAMES = {1: "air", 2: "soft tissue"}


def threshold_and_write(scan: Path, folder: Path) -> SimpleITK.Image:
    """Segment by HU at 4 mm, take the logits back and write them; return the scan as SimpleITK sees it."""
    chain = load_ct(window_hu=(-1000, 200), spacing_mm=(4, 4, 4))
    after = Compose(
        [Invertd("pred", chain, orig_keys="image", nearest_interp=False), LabelMapWriter("pred", folder, NAMES)]
    )
    data = chain({"image": scan})
    grey = data["image"].as_tensor()
    data["pred"] = MetaTensor(torch.cat([torch.full_like(grey, 0.2), 0.5 - grey, grey - 0.5]))
    after(data)
    return SimpleITK.ReadImage(str(folder / data["case"] / f"{data['case']}_seg.nii.gz"))


def assert_on_the_grid_of(image: SimpleITK.Image, written: SimpleITK.Image) -> None:
    assert written.GetSize() == image.GetSize()
    # NIfTI holds float32; 1e-3 mm over a body.
    np.testing.assert_allclose(affine_of_itk(written), affine_of_itk(image), rtol=0, atol=1e-3)
    grey, ids = SimpleITK.GetArrayFromImage(image), SimpleITK.GetArrayFromImage(written)
    # Away from borders that 4 mm blur, the labels are the thresholds of this very grid: nothing was mirrored.
    assert np.mean(grey[ids == 1] < -400) > 0.97
    assert np.mean(grey[ids == 2] > -400) > 0.97
    assert min(np.mean(ids == 1), np.mean(ids == 2)) > 0.1


@pytest.mark.parametrize("name", ["heart_1p5mm.nii.gz", "abdomen_slab_3mm.nii.gz"])
def test_real_nifti(shared_ct, tmp_path, name):
    written = threshold_and_write(shared_ct / name, tmp_path)
    assert_on_the_grid_of(SimpleITK.ReadImage(str(shared_ct / name)), written)


def test_real_dicom(shared_ct, tmp_path):
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(shared_ct / "dicom_jpeg2000")))
    written = threshold_and_write(shared_ct / "dicom_jpeg2000", tmp_path)
    assert_on_the_grid_of(reader.Execute(), written)


@pytest.mark.parametrize("ending", ["nii.gz", "nrrd", "mha"])
def test_oblique_and_anisotropic(shared_ct, tmp_path, ending):
    source = nib.load(shared_ct / "abdomen_slab_3mm.nii.gz")
    turn = np.array([[0.8, 0, -0.6, 12], [0, -1, 0, -7], [0.6, 0, 0.8, 3], [0, 0, 0, 1]])
    image = nib.Nifti1Image(np.asarray(source.dataobj)[::2, ::-1], turn @ source.affine @ np.diag([2, 1, 1, 1]))
    image.set_qform(image.affine, 1)
    nib.save(image, tmp_path / "oblique.nii.gz")
    path = tmp_path / f"scan.{ending}"
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(tmp_path / "oblique.nii.gz")), str(path))
    written = threshold_and_write(path, tmp_path / "out")
    assert_on_the_grid_of(SimpleITK.ReadImage(str(path)), written)
