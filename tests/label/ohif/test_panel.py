"""The MONAI Label panel in a real browser: what it shows lies where it belongs in the patient."""

from dataclasses import dataclass, field
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from monai_ext.volumes import read_scan

requests = pytest.importorskip("requests")

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
AXIAL = "cornerstone.getRenderingEngines()[0].getViewport('mpr-axial')"
SHOW = f"(point) => {{ {AXIAL}.jumpToWorld(point); {AXIAL}.render(); }}"
ON_CANVAS = f"(points) => points.map((point) => Array.from({AXIAL}.worldToCanvas(point)))"
CT = "cornerstone.cache.getVolumes().find((volume) => volume?.loadStatus?.loaded)"
LABELS = "services.segmentationService.getLabelmapVolume('1')"
PICTURES = {"ct_segmentation": "ohif_segmentation.png", "lesion_heatmap": "ohif_heatmap.png"}  # by model


@dataclass(frozen=True)
class Seen:
    """All that was read from the browser on its way from the study list to the overlay."""

    study_list: str
    image: Any
    labels: Any
    names: dict[int, str]
    colours: dict[str, tuple[int, ...]]
    plane: int
    canvas_of_first: np.ndarray
    canvas_per_voxel: np.ndarray
    before: np.ndarray = field(repr=False)
    after: np.ndarray = field(repr=False)


@pytest.fixture(scope="module", params=PICTURES)
def model(request: pytest.FixtureRequest, dicomweb_server: Any) -> tuple[str, dict[str, int]]:
    """Name and labels of a model that the panel offers."""
    models = requests.get(f"{dicomweb_server.url}/info/", timeout=60).json()["models"]
    return request.param, models[request.param]["labels"]


@pytest.fixture(scope="module")
def answer(
    dicomweb_server: Any, stored_series: Any, model: Any, placed: Any, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """That model's labels of the series, asked for without the viewer, in a file that says where they lie."""
    url = f"{dicomweb_server.url}/infer/{model[0]}"
    asked = {"image": stored_series.series, "output": "image"}
    got = requests.post(url, params=asked, data={"params": '{"result_extension": ".nii.gz"}'}, timeout=120)
    assert got.ok, got.text
    path = tmp_path_factory.mktemp("answer") / "labels.nii.gz"
    path.write_bytes(got.content)
    image = nibabel.load(path)
    return placed(np.asarray(image.dataobj).astype(np.uint8), image.affine)


@pytest.fixture(scope="module")
def seen(viewer: Any, model: tuple[str, dict[str, int]], answer: Any, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """Walk the way of a reader: study list, viewer, MONAI Label panel, model, run, overlay."""
    page = viewer.page
    viewer.open("")
    row = page.locator("tr", has_text="PLANTED, NAME").first
    study_list = row.inner_text()
    row.click()
    page.get_by_role("link", name="MONAI Label").click()
    page.wait_for_function(f"window.cornerstone && {CT}")
    page.locator(".settingsTable button").click()
    page.wait_for_function("services.segmentationService.getSegmentation('1')")
    page.locator(".cornerstone-viewport-element").first.dblclick()  # the axial view alone

    image = viewer.volume(CT)
    plane = int(np.argmax(np.count_nonzero(answer.on_grid_of(image), axis=(0, 1))))
    corners = np.array([[0, 0, plane, 1], [1, 0, plane, 1], [0, 1, plane, 1]])
    points = (RAS_TO_LPS @ image.affine @ corners.T).T[:, :3].tolist()
    page.evaluate(SHOW, points[0])

    def picture() -> np.ndarray:
        page.wait_for_timeout(1500)  # cornerstone draws when it likes
        path = tmp_path_factory.mktemp("canvas") / "canvas.png"
        page.locator("canvas.cornerstone-canvas").first.screenshot(path=path)
        return np.asarray(Image.open(path).convert("RGB")).astype(int)

    page.get_by_text("Connected to MONAI Label - Successful").first.wait_for(state="hidden")
    page.locator(".modelSelector select").first.select_option(model[0])
    before = picture()
    page.locator("button[title='Run Segmentation']").click()
    done = page.get_by_text("Running Segmentation - Successful").first
    done.wait_for()
    done.wait_for(state="hidden")
    after = picture()
    viewer.keep(PICTURES[model[0]])
    first, along_x, along_y = np.array(page.evaluate(ON_CANVAS, points))
    per_voxel = np.stack([along_x - first, along_y - first], axis=1)
    labels, names, colours = viewer.volume(LABELS), viewer.segments(), viewer.colours("mpr-axial")
    return Seen(study_list, image, labels, names, colours, plane, first, per_voxel, before, after)


def test_study_list_shows_the_series(seen: Seen, stored_series: Any) -> None:
    assert "PLANTED, NAME" in seen.study_list
    assert seen.study_list.split()[-3:] == ["CT", "PLANTED-17", str(len(stored_series.datasets))]


def test_viewer_gets_every_slice_from_the_pacs(seen: Seen, viewer: Any) -> None:
    assert viewer.failures == []


def test_viewer_holds_the_voxels_that_we_read(seen: Seen, stored_series: Any, placed: Any) -> None:
    scan = read_scan(stored_series.folder)
    assert np.array_equal(placed(scan.voxels, scan.affine).on_grid_of(seen.image), seen.image.voxels)


def test_labels_in_the_viewer_lie_where_the_server_put_them(
    seen: Seen, answer: Any, model: tuple[str, dict[str, int]]
) -> None:
    """The panel lays an answer over its own grid, whatever the answer says about its place."""
    expected = answer.on_grid_of(seen.labels)
    assert len(np.unique(expected)) > 2  # one label alone could not be taken for another
    assert model[1].keys() <= set(seen.names.values())
    for index, name in seen.names.items():
        assert np.array_equal(seen.labels.voxels == index, expected == model[1].get(name, -1)), name


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_mirrored_answer_would_be_noticed(seen: Seen, answer: Any, axis: int) -> None:
    expected = answer.on_grid_of(seen.labels) > 0
    assert not np.array_equal(expected, np.flip(expected, axis))


def test_overlay_is_drawn_on_the_mask(seen: Seen) -> None:
    """Pixel by pixel: what the run changed in the picture is the mask, up to the two pixels of a smoothed edge."""
    height, width = seen.after.shape[:2]
    pixels = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5, indexing="ij"), axis=-1)
    index = np.round((pixels - seen.canvas_of_first) @ np.linalg.inv(seen.canvas_per_voxel).T).astype(int)
    mask = seen.labels.voxels[:, :, seen.plane] > 0
    inside = np.all((index >= 0) & (index < mask.shape), axis=-1)
    expected = np.zeros((width, height), bool)
    expected[inside] = mask[tuple(index[inside].T)]
    changed = np.any(seen.before != seen.after, axis=-1).T
    core = ndimage.binary_erosion(expected, iterations=2)
    assert np.count_nonzero(core) > 200
    assert np.mean(changed[core]) > 0.99  # where a colour is that of the image nothing changes
    assert np.all(ndimage.binary_dilation(expected, iterations=2)[changed])


@pytest.mark.parametrize("model", ["lesion_heatmap"], indirect=True)
def test_bands_of_a_heat_map_are_told_apart(seen: Seen, model: tuple[str, dict[str, int]]) -> None:
    """OHIF chooses the colours, by the names."""
    colours = np.array([seen.colours[name] for name in model[1]])
    apart = np.linalg.norm(colours[:, None] - colours, axis=-1)
    assert apart[~np.eye(len(colours), dtype=bool)].min() > 50
