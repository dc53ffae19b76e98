"""Results in the PACS as another vendor's reader shows them: OHIF opens our SEG and our Parametric Map."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from monai_ext.outputs import write_dicom_seg, write_heat_map
from monai_ext.volumes import DicomSeries, open_series

NAMES = {1: "liver", 2: "spleen", 3: "liver lesion"}
HEAT_MAP = "cornerstone.cache.getVolumes().find((volume) => volume?.volumeId?.startsWith('pmap'))"
# In a stack, labels are kept a slice, each with a reference to its image.
STACKED = """(() => {
    const ids = services.segmentationService.getSegmentations()[0].representationData.Labelmap.imageIds;
    const slices = ids.map((id) => cornerstone.cache.getImage(id)).map((image) => ({
        values: image.voxelManager.getScalarData(),
        plane: cornerstone.metaData.get("imagePlaneModule", image.referencedImageId),
    }));
    const {rowCosines: x, columnCosines: y, rows, columns, columnPixelSpacing, rowPixelSpacing} = slices[0].plane;
    const normal = [x[1] * y[2] - x[2] * y[1], x[2] * y[0] - x[0] * y[2], x[0] * y[1] - x[1] * y[0]];
    const along = ({plane}) => normal.reduce((sum, part, axis) => sum + part * plane.imagePositionPatient[axis], 0);
    slices.sort((one, other) => along(one) - along(other));
    const voxels = new Uint8Array(rows * columns * slices.length);
    slices.forEach((slice, index) => voxels.set(slice.values, index * rows * columns));
    return {
        dimensions: [columns, rows, slices.length], origin: slices[0].plane.imagePositionPatient,
        spacing: [columnPixelSpacing, rowPixelSpacing, along(slices[1]) - along(slices[0])],
        direction: [...x, ...y, ...normal], voxelManager: {getCompleteScalarDataArray: () => voxels},
    };
})()"""
BY = {"algorithm": "made up", "version": "1"}


@pytest.fixture(scope="module")
def source(stored_series: Any) -> DicomSeries:
    return open_series(stored_series.folder)


@pytest.fixture(scope="module")
def labels(source: DicomSeries) -> np.ndarray:
    """Boxes of which none is its own mirror image; there is no spleen."""
    labels = np.zeros(source.shape, np.uint8)
    labels[101:240, 180:311, 3:14] = 1
    labels[150:181, 211:224, 5:12] = 3
    return labels


@pytest.fixture(scope="module")
def heat(source: DicomSeries) -> np.ndarray:
    """A hill whose top is nowhere near the middle, and slopes of another width along each axis."""
    x, y, z = np.meshgrid(*(np.arange(size) for size in source.shape), indexing="ij")
    hill = -((x - 163) ** 2) / 800 - ((y - 227) ** 2) / 300 - ((z - 6) ** 2) / 18
    return np.exp(hill).astype(np.float32)


@pytest.fixture(scope="module")
def stored(
    orthanc: Any, source: DicomSeries, labels: np.ndarray, heat: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Both results in Orthanc, beside the series that they were made from."""
    folder: Path = tmp_path_factory.mktemp("results")
    headers = source.headers()
    seg = write_dicom_seg(folder / "seg.dcm", labels, source.affine, headers, NAMES, **BY)
    heat_map = write_heat_map(folder / "heat.dcm", heat, source.affine, headers, quantity="anomaly score", **BY)
    results = [pydicom.dcmread(path) for path in (seg, heat_map)]
    try:
        with orthanc.client() as client:
            reply = client.store_instances(results)
        assert len(reply.ReferencedSOPSequence) == 2
        yield
    finally:
        for result in results:
            orthanc.forget(result.SeriesInstanceUID)


@pytest.fixture
def opened(viewer: Any, stored: None, stored_series: Any) -> Any:
    """The study in OHIF's basic viewer, opened anew: a heat map's colours would stay on the scan."""
    viewer.open(f"viewer?StudyInstanceUIDs={stored_series.study}")
    return viewer


def test_heat_map_lies_on_the_scan(opened: Any, heat: np.ndarray, source: DicomSeries, placed: Any) -> None:
    opened.page.get_by_text("anomaly score (for research use only)").first.dblclick()
    opened.page.get_by_text("values are multiplied by 100").first.wait_for()
    opened.page.wait_for_function(HEAT_MAP)
    shown = opened.volume(HEAT_MAP)
    opened.page.wait_for_timeout(3000)
    opened.keep("ohif_heat_map.png")
    expected = placed(heat, source.affine).on_grid_of(shown)
    np.testing.assert_allclose(shown.voxels, 100 * expected, rtol=1e-6)  # one rounding to float32
    assert opened.failures == []


def test_segmentation_lies_on_the_scan(opened: Any, labels: np.ndarray, source: DicomSeries, placed: Any) -> None:
    opened.page.get_by_text("Segmentation (for research use only)").first.dblclick()
    opened.page.get_by_role("button", name="Yes").click()
    opened.page.wait_for_function("services.segmentationService.getSegmentations().length")
    assert opened.segments() == NAMES
    shown = opened.volume(STACKED)
    assert np.array_equal(shown.voxels, placed(labels, source.affine).on_grid_of(shown))
    assert opened.failures == []
