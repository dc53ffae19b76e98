"""The viewer inside MONAI Label, in a real browser: what it shows lies where it belongs in the patient."""

import base64
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from monai_ext.volumes import read_scan

requests = pytest.importorskip("requests")
playwright_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")

QUIET = ["--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update"]
QUIET += ["--disable-sync", "--disable-gpu"]
SOFTWARE_WEBGL = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
WAIT_MS = 120_000  # the first inference loads the model
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

READ_VOLUMES = """() => {
    const bytes = (values) => {
        const raw = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
        let text = "";
        for (let at = 0; at < raw.length; at += 32768) text += String.fromCharCode(...raw.subarray(at, at + 32768));
        return btoa(text);
    };
    const told = (volume) => ({
        dimensions: volume.dimensions, spacing: volume.spacing, origin: volume.origin,
        direction: Array.from(volume.direction), type: volume.dataType,
        voxels: bytes(volume.voxelManager.getCompleteScalarDataArray()),
    });
    const service = services.segmentationService;
    const image = cornerstone.cache.getVolumes().find((volume) => volume.loadStatus?.loaded);
    const segments = Object.values(service.getSegmentations()[0].segments);
    return {
        image: told(image), labels: told(service.getLabelmapVolume("1")),
        names: Object.fromEntries(segments.map((segment) => [segment.segmentIndex, segment.label])),
    };
}"""

AXIAL = "cornerstone.getRenderingEngines()[0].getViewport('mpr-axial')"
SHOW = f"(point) => {{ {AXIAL}.jumpToWorld(point); {AXIAL}.render(); }}"
ON_CANVAS = f"(points) => points.map((point) => Array.from({AXIAL}.worldToCanvas(point)))"


@dataclass(frozen=True)
class Volume:
    """Voxels ``(x, y, z)`` and the way from their index to mm in RAS+."""

    voxels: np.ndarray = field(repr=False)
    affine: np.ndarray


@dataclass(frozen=True)
class Seen:
    """All that was read from the browser on its way from the study list to the overlay."""

    study_list: str
    failures: list[str]
    image: Volume
    labels: Volume
    names: dict[int, str]
    plane: int
    canvas_of_first: np.ndarray
    canvas_per_voxel: np.ndarray
    before: np.ndarray = field(repr=False)
    after: np.ndarray = field(repr=False)


def volume_of(told: dict[str, Any]) -> Volume:
    """Read a volume as cornerstone keeps it: x fastest, axes and origin in LPS."""
    voxels = np.frombuffer(base64.b64decode(told["voxels"]), np.dtype(told["type"].removesuffix("Array").lower()))
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(told["direction"], (3, 3)).T * told["spacing"]
    affine[:3, 3] = told["origin"]
    return Volume(voxels.reshape(told["dimensions"], order="F"), LPS_TO_RAS @ affine)


def on_grid_of(target: Volume, source: Volume) -> np.ndarray:
    """Look ``source`` up at every voxel centre of ``target``; both must have the same voxels, in any order."""
    between = np.linalg.inv(source.affine) @ target.affine
    assert np.allclose(between, np.round(between), atol=1e-3)  # NIfTI keeps its affine in float32
    between = np.round(between)
    return ndimage.affine_transform(
        source.voxels, between[:3, :3], between[:3, 3], output_shape=target.voxels.shape, order=0, mode="constant"
    )


@pytest.fixture(scope="module")
def model(dicomweb_server: Any) -> tuple[str, dict[str, int]]:
    """Name and labels of the model that the viewer's panel offers first."""
    models = requests.get(f"{dicomweb_server.url}/info/", timeout=60).json()["models"]
    return next((name, told["labels"]) for name, told in models.items() if told["type"] == "segmentation")


@pytest.fixture(scope="module")
def answer(dicomweb_server: Any, stored_series: Any, model: Any, tmp_path_factory: pytest.TempPathFactory) -> Volume:
    """That model's labels of the series, asked for without the viewer, in a file that says where they lie."""
    url = f"{dicomweb_server.url}/infer/{model[0]}"
    asked = {"image": stored_series.series, "output": "image"}
    got = requests.post(url, params=asked, data={"params": '{"result_extension": ".nii.gz"}'}, timeout=WAIT_MS / 1000)
    assert got.ok, got.text
    path = tmp_path_factory.mktemp("answer") / "labels.nii.gz"
    path.write_bytes(got.content)
    image = nibabel.load(path)
    return Volume(np.asarray(image.dataobj).astype(np.uint8), image.affine)


@pytest.fixture(scope="module")
def page(dicomweb_server: Any, chromium: str) -> Iterator[Any]:
    """A page that reaches the label server and nothing else, already told where the server is."""
    with playwright_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=QUIET + SOFTWARE_WEBGL)
        context = browser.new_context(viewport={"width": 1400, "height": 900})
        context.set_default_timeout(WAIT_MS)
        server = dicomweb_server.url
        context.add_cookies([{"name": "MONAILABEL_SERVER_URL", "value": f"{server}/", "url": server}])
        # OHIF asks Google for a font on every page; without a network that would wait for a name server.
        context.route(lambda url: not url.startswith(f"{server}/"), lambda route: route.abort())
        yield context.new_page()
        browser.close()


@pytest.fixture(scope="module")
def seen(page: Any, dicomweb_server: Any, answer: Volume, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """Walk the way of a reader: study list, viewer, MONAI Label panel, run, overlay."""
    failures: list[str] = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.on("response", lambda got: got.status >= 400 and "/proxy/" in got.url and failures.append(got.url))
    page.goto(f"{dicomweb_server.url}/ohif/", wait_until="domcontentloaded")
    page.get_by_role("button", name="Confirm and Hide").click()
    row = page.locator("tr", has_text="PLANTED, NAME").first
    study_list = row.inner_text()
    row.click()
    page.get_by_role("link", name="MONAI Label").click()
    page.wait_for_function("window.cornerstone?.cache.getVolumes().some((volume) => volume.loadStatus?.loaded)")
    page.locator(".settingsTable button").click()
    run = page.locator("button[title='Run Segmentation']")
    run.wait_for()
    page.wait_for_function("services.segmentationService.getLabelmapVolume('1')")

    page.locator(".cornerstone-viewport-element").first.dblclick()  # the axial view alone
    image = volume_of(page.evaluate(READ_VOLUMES)["image"])
    expected = on_grid_of(image, answer)
    plane = int(np.argmax(np.count_nonzero(expected, axis=(0, 1))))
    corners = np.array([[0, 0, plane, 1], [1, 0, plane, 1], [0, 1, plane, 1]])
    points = (LPS_TO_RAS @ image.affine @ corners.T).T[:, :3].tolist()
    page.evaluate(SHOW, points[0])
    message = page.get_by_text("Running Segmentation - Successful")

    def picture() -> np.ndarray:
        page.wait_for_timeout(1500)  # cornerstone draws when it likes
        path = tmp_path_factory.mktemp("canvas") / "canvas.png"
        page.locator("canvas.cornerstone-canvas").first.screenshot(path=path)
        return np.asarray(Image.open(path).convert("RGB")).astype(int)

    page.get_by_text("Connected to MONAI Label - Successful").wait_for(state="hidden")
    before = picture()
    run.click()
    message.wait_for()
    message.wait_for(state="hidden")
    after = picture()
    first, along_x, along_y = np.array(page.evaluate(ON_CANVAS, points))
    told = page.evaluate(READ_VOLUMES)
    if folder := os.environ.get("MONAI_EXT_PICTURES"):  # docs/images, to renew the picture of the documentation
        page.screenshot(path=Path(folder) / "ohif_segmentation.png")
    return Seen(
        study_list,
        failures,
        volume_of(told["image"]),
        volume_of(told["labels"]),
        {int(index): name for index, name in told["names"].items()},
        plane,
        first,
        np.stack([along_x - first, along_y - first], axis=1),
        before,
        after,
    )


def test_study_list_shows_the_series(seen: Seen, stored_series: Any) -> None:
    assert "PLANTED, NAME" in seen.study_list
    assert seen.study_list.split()[-3:] == ["CT", "PLANTED-17", str(len(stored_series.datasets))]


def test_viewer_gets_every_slice_from_the_pacs(seen: Seen) -> None:
    assert seen.failures == []


def test_viewer_holds_the_voxels_that_we_read(seen: Seen, stored_series: Any) -> None:
    scan = read_scan(stored_series.folder)
    assert np.array_equal(on_grid_of(seen.image, Volume(scan.voxels, scan.affine)), seen.image.voxels)


def test_labels_in_the_viewer_lie_where_the_server_put_them(
    seen: Seen, answer: Volume, model: tuple[str, dict[str, int]]
) -> None:
    expected = on_grid_of(seen.labels, answer)
    assert expected.any()
    for index, name in seen.names.items():
        assert np.array_equal(seen.labels.voxels == index, expected == model[1].get(name, -1)), name


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_mirrored_answer_would_be_noticed(seen: Seen, answer: Volume, axis: int) -> None:
    expected = on_grid_of(seen.labels, answer)
    assert not np.array_equal(expected > 0, np.flip(expected > 0, axis))


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
