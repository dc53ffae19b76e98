"""Phantom torsos: anatomy in millimetres, the same for the same seed, and not to be told apart by HU alone."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from monai_ext.base import SettingError
from monai_ext.manifests import read_datalist
from monai_ext.volumes import PHANTOM_LABELS, Phantom, phantom_torso, write_phantoms

COARSE = (67, 53, 59), (6.0, 6.0, 6.0)  # quick, and the whole torso is inside
IDS = {name: number for number, name in PHANTOM_LABELS.items()}
# Adults' organs in ml, generously; lungs and spine as far as the volume shows them.
VOLUMES_ML = {
    "liver": (700, 2000),
    "spleen": (60, 400),
    "kidney_right": (70, 280),
    "kidney_left": (70, 280),
    "lungs": (1800, 6500),
    "spine": (250, 900),
    "aorta": (80, 350),
    "heart": (250, 800),
}


@pytest.fixture(scope="module")
def patients() -> list[Phantom]:
    return [phantom_torso(seed, *COARSE) for seed in range(12)]


def centre_mm(phantom: Phantom, organ: str) -> np.ndarray:
    voxels = np.argwhere(phantom.labels == IDS[organ])
    return voxels.mean(0) @ phantom.affine[:3, :3].T + phantom.affine[:3, 3]


def volume_ml(phantom: Phantom, organ: str) -> float:
    voxel_mm3 = abs(np.linalg.det(phantom.affine[:3, :3]))
    return float((phantom.labels == IDS[organ]).sum() * voxel_mm3 / 1000)


def test_a_seed_is_a_patient() -> None:
    first, again, other = (phantom_torso(seed, *COARSE) for seed in (3, 3, 4))
    assert_array_equal(first.hu, again.hu)
    assert_array_equal(first.labels, again.labels)
    assert (first.labels != other.labels).mean() > 0.02
    assert first.hu.shape == first.labels.shape == COARSE[0]
    assert (first.hu.dtype, first.labels.dtype) == (np.int16, np.uint8)


@pytest.mark.parametrize("organ", VOLUMES_ML)
def test_organs_have_the_size_of_adults(patients: list[Phantom], organ: str) -> None:
    low, high = VOLUMES_ML[organ]
    sizes = [volume_ml(patient, organ) for patient in patients]
    assert low < min(sizes) < max(sizes) < high
    assert max(sizes) > 1.1 * min(sizes)  # patients differ


def test_left_is_left_and_up_is_up(patients: list[Phantom]) -> None:
    for patient in patients:
        assert nib.aff2axcodes(patient.affine) == ("R", "A", "S")
        liver, spleen, heart = (centre_mm(patient, organ) for organ in ("liver", "spleen", "heart"))
        right, left = centre_mm(patient, "kidney_right"), centre_mm(patient, "kidney_left")
        spine, lungs = centre_mm(patient, "spine"), centre_mm(patient, "lungs")
        assert liver[0] > spine[0] + 30
        assert spleen[0] < spine[0] - 50
        assert heart[0] < spine[0]
        assert right[0] - spine[0] > 35
        assert left[0] - spine[0] < -35
        assert spine[1] < right[1] < liver[1]
        assert left[2] < spleen[2] < heart[2]
        assert right[2] < liver[2] < lungs[2]


def test_tissues_have_their_hu(patients: list[Phantom]) -> None:
    for patient in patients:
        means = {name: patient.hu[patient.labels == number].mean() for name, number in IDS.items()}
        assert -920 < means["lungs"] < -680
        assert 5 < means["liver"] < 150
        assert 20 < means["spleen"] < 150
        assert 60 < means["spine"] < 330
        assert 0 < means["aorta"] < 330  # plain to arterial, mixed with the fat around it at 6 mm
        assert patient.hu[0, -1].max() < -850  # the air of the room, in front of the patient's shoulder
        assert patient.hu.min() >= -1024


def test_shapes_are_in_millimetres_not_in_voxels() -> None:
    fine = phantom_torso(5, (96, 72, 84), (4.0, 4.0, 4.0))
    flat = phantom_torso(5, (96, 72, 42), (4.0, 4.0, 8.0))
    for organ in IDS:
        # Surfaces fall between other voxels; thin organs change most.
        assert volume_ml(flat, organ) == pytest.approx(volume_ml(fine, organ), rel=0.06)
        assert np.abs(centre_mm(flat, organ) - centre_mm(fine, organ)).max() < 3


def test_edges_are_shared_between_tissues() -> None:
    """Between liver and lung some voxels hold both; a picture without partial volume has none."""
    phantom = phantom_torso(2, *COARSE)
    liver, above = phantom.labels[:, :, :-1] == IDS["liver"], phantom.labels[:, :, 1:] != IDS["liver"]
    step = phantom.hu[:, :, 1:][liver & above]
    assert ((step > -700) & (step < -200)).mean() > 0.05


def threshold_baseline(training: list[Phantom], unseen: list[Phantom]) -> dict[str, float]:
    """Mean Dice per organ of the best choice of HU values that exists for it.

    Dice of a set of HU bins is largest for the bins in which the organ is most frequent, up to some number;
    all numbers are tried. No classifier that sees HU alone, threshold or interval, does better in training.
    """
    edges = np.arange(-1024, 3073, 8)

    def counts(patient: Phantom, number: int | None = None) -> np.ndarray:
        voxels = patient.hu if number is None else patient.hu[patient.labels == number]
        return np.histogram(voxels, edges)[0]

    everything = np.sum([counts(patient) for patient in training], axis=0)
    scores = {}
    for organ, number in IDS.items():
        organ_counts = np.sum([counts(patient, number) for patient in training], axis=0)
        order = np.argsort(-organ_counts / np.maximum(everything, 1))
        hits, taken = np.cumsum(organ_counts[order]), np.cumsum(everything[order])
        chosen = order[: np.argmax(2 * hits / (taken + organ_counts.sum())) + 1]
        dice = []
        for patient in unseen:
            inside, found = counts(patient, number), counts(patient)[chosen].sum()
            dice.append(2 * inside[chosen].sum() / (found + inside.sum()))
        scores[organ] = float(np.mean(dice))
    return scores


def test_hu_alone_does_not_tell_the_organs_apart(patients: list[Phantom]) -> None:
    scores = threshold_baseline(patients[:9], patients[9:])
    assert np.mean(list(scores.values())) < 0.5
    assert scores["lungs"] > 0.7  # air is easy, or the baseline itself would be broken
    assert max(scores["kidney_right"], scores["kidney_left"], scores["spleen"]) < 0.4


def test_written_phantoms_are_pairs_that_a_datalist_lists(tmp_path: Path) -> None:
    counts = {"training": 2, "validation": 1, "test": 1}
    path = write_phantoms(tmp_path / "phantoms", counts, seed=7, shape=(17, 13, 11), spacing_mm=(24.0, 23.0, 29.0))
    entries = read_datalist(path)
    assert [entry.section for entry in entries] == ["training", "training", "validation", "test"]
    volumes = []
    for entry in entries:
        image, label = nib.load(entry.image), nib.load(entry.label)
        assert image.get_data_dtype() == np.int16
        assert_array_equal(image.affine, label.affine)
        assert image.header.get_zooms() == pytest.approx((24, 23, 29))
        volumes.append(np.asarray(image.dataobj))
    assert len({volume.tobytes() for volume in volumes}) == 4  # no patient appears in two sections
    again = write_phantoms(tmp_path / "again", counts, seed=7, shape=(17, 13, 11), spacing_mm=(24.0, 23.0, 29.0))
    assert_array_equal(np.asarray(nib.load(read_datalist(again)[3].image).dataobj), volumes[3])


@pytest.mark.parametrize(
    ("shape", "spacing_mm", "sentence"),
    [
        ((17, 0, 11), (3.0, 3.0, 3.0), r"^shape: \(17, 0, 11\) .* three positive"),
        ((17, 13), (3.0, 3.0, 3.0), r"^shape: \(17, 13\)"),
        ((17, 13, 11), (3.0, -3.0, 3.0), r"^spacing_mm: \(3.0, -3.0, 3.0\) .* mm"),
        ((17, 13, 11), (3.0, 3.0, float("nan")), r"^spacing_mm: "),
    ],
)
def test_impossible_grids_are_refused(shape: tuple, spacing_mm: tuple, sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        phantom_torso(0, shape, spacing_mm)
