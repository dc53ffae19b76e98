"""The header alone tells what reading everything tells, and refuses what reading everything refuses."""

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from monai_ext.base import GeometryError, InputError, ScanError
from monai_ext.volumes import read_header, read_labels, read_scan

SHAPE = (7, 11, 13)
AFFINE = np.array([[-1.5, 0, 0, 20], [0, 0, 2.5, -31], [0, 2, 0, 44], [0, 0, 0, 1.0]])


def ct() -> np.ndarray:
    rng = np.random.default_rng(5)
    voxels = rng.integers(-1010, -990, SHAPE)
    voxels[2:5, 3:9, 2:11] = rng.integers(-100, 80, (3, 6, 9))
    return voxels.astype(np.int16)


def write(path: Path, voxels: np.ndarray | None = None, affine: np.ndarray = AFFINE) -> Path:
    voxels = ct() if voxels is None else voxels
    if ".nii" in path.name:
        nib.Nifti1Image(voxels, affine).to_filename(path)
    else:
        image = SimpleITK.GetImageFromArray(np.ascontiguousarray(voxels.transpose(2, 1, 0)))
        image.SetSpacing((1.5, 2.0, 2.5))
        image.SetDirection((0, -1, 0, 1, 0, 0, 0, 0, 1))
        image.SetOrigin((3, -4, 5))
        SimpleITK.WriteImage(image, str(path), useCompression=path.name == "ct.mha")
    return path


@pytest.mark.parametrize("name", ["ct.nii", "ct.nii.gz", "ct.mha", "ct.mhd", "ct.nrrd"])
def test_a_header_is_that_of_the_whole_scan(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name)
    scan, header = read_scan(path), read_header(path)
    assert (header.shape, header.case, header.kind) == (scan.shape, scan.case, scan.kind)
    assert header.shape == SHAPE
    np.testing.assert_array_equal(header.affine, scan.affine)
    assert header.spacing_mm == scan.spacing_mm


def test_of_a_series_the_slices_are_checked(tmp_path: Path, write_series: Callable[..., Path]) -> None:
    folder = write_series(tmp_path / "series", ct())
    scan, header = read_scan(folder), read_header(folder, case="patient 7")
    assert (header.shape, header.case, header.kind) == (scan.shape, "patient 7", "dicom")
    np.testing.assert_array_equal(header.affine, scan.affine)
    sorted(folder.iterdir())[4].unlink()
    with pytest.raises(GeometryError, match="series: "):
        read_header(folder)


@pytest.mark.parametrize("name", ["ct.nii", "plain.mha", "ct.nrrd"])
@pytest.mark.parametrize("change", [lambda content: content[:-7], lambda content: content + b"more"])
def test_a_file_of_the_wrong_length_is_refused_without_its_voxels(
    tmp_path: Path, name: str, change: Callable[[bytes], bytes]
) -> None:
    path = write(tmp_path / name)
    path.write_bytes(change(path.read_bytes()))
    sentences = []
    for read in (read_scan, read_header):
        with pytest.raises(ScanError, match=r"(ct|plain): the file cannot be used, it holds .* bytes") as caught:
            read(path)
        sentences.append(str(caught.value))
    assert sentences[0] == sentences[1]


def test_headers_that_mislead_are_refused_likewise(tmp_path: Path) -> None:
    path = write(tmp_path / "ct.nii.gz")
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[252:256] = bytes(4)  # qform and sform codes: left and right are unknown
    path.write_bytes(gzip.compress(content))
    with pytest.raises(GeometryError, match="ct: neither qform nor sform is set") as caught:
        read_header(path)
    assert caught.value.code == "scan.no_orientation"
    path.write_bytes(b"")
    with pytest.raises(ScanError, match=r"ct: .*it is empty"):
        read_header(path)
    with pytest.raises(InputError, match="there is no such file"):
        read_header(tmp_path / "other.nii")


def test_labels_are_compared_with_a_header(tmp_path: Path) -> None:
    header = read_header(write(tmp_path / "ct.nii.gz"))
    ids = (ct() > -500).astype(np.uint8)
    labels = read_labels(write(tmp_path / "seg.nii.gz", ids), like=header, classes=[1])
    np.testing.assert_array_equal(labels.voxels, ids)
    flipped = AFFINE @ np.diag([-1.0, 1, 1, 1])
    flipped[:3, 3] += AFFINE[:3, 0] * (SHAPE[0] - 1)
    turned = read_labels(write(tmp_path / "seg.nii.gz", ids[::-1], flipped), like=header)
    np.testing.assert_array_equal(turned.voxels, ids)
    with pytest.raises(GeometryError, match="7x11x12 label voxels, but 7x11x13 image voxels"):
        read_labels(write(tmp_path / "seg.nii.gz", ids[:, :, :-1]), like=header)
