"""OHIF as the label server delivers it, in Debian's Chromium, and what is read out of it."""

import base64
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

QUIET = ["--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update"]
QUIET += ["--disable-sync", "--disable-gpu"]
# OHIF asks Google for a font on every page; without a network that could wait long for a name server.
QUIET += ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
SOFTWARE_WEBGL = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
WAIT_MS = 120_000  # the first inference loads the model
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

TELL = """() => {
    const volume = %s;
    const values = volume.voxelManager.getCompleteScalarDataArray();
    const raw = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    let text = "";
    for (let at = 0; at < raw.length; at += 32768) text += String.fromCharCode(...raw.subarray(at, at + 32768));
    return {
        dimensions: volume.dimensions, spacing: volume.spacing, origin: volume.origin,
        direction: Array.from(volume.direction), type: values.constructor.name, voxels: btoa(text),
    };
}"""


@dataclass(frozen=True)
class Volume:
    """Voxels ``(x, y, z)`` and the way from their index to mm in RAS+."""

    voxels: np.ndarray = field(repr=False)
    affine: np.ndarray

    def on_grid_of(self, target: "Volume") -> np.ndarray:
        """Look the voxels up at the voxel centres of ``target``, which may count its axes in another order."""
        between = np.linalg.inv(self.affine) @ target.affine
        assert np.allclose(between, np.round(between), atol=1e-3)  # NIfTI keeps its affine in float32
        between = np.round(between)
        shape = target.voxels.shape
        return ndimage.affine_transform(
            self.voxels, between[:3, :3], between[:3, 3], output_shape=shape, order=0, mode="constant"
        )


class Viewer:
    """A page of OHIF that reaches the label server and nothing else.

    Attributes:
        failures: addresses in the PACS that were refused, and errors of the page's own.
    """

    def __init__(self, page: Any, server: str) -> None:
        self.page = page
        self.server = server
        self.failures: list[str] = []
        self.confirmed = False
        page.on("pageerror", lambda error: self.failures.append(str(error)))
        page.on("response", lambda got: got.status >= 400 and "/proxy/" in got.url and self.failures.append(got.url))

    def open(self, path: str) -> None:
        self.page.goto(f"{self.server}/ohif/{path}", wait_until="domcontentloaded")
        if not self.confirmed:  # once for all pages
            self.page.get_by_role("button", name="Confirm and Hide").click()
            self.confirmed = True

    def volume(self, expression: str) -> Volume:
        """Read a volume of cornerstone, which keeps x fastest, and axes and origin in LPS."""
        told = self.page.evaluate(TELL % expression)
        dtype = np.dtype(told["type"].removesuffix("Array").lower())
        affine = np.eye(4)
        affine[:3, :3] = np.reshape(told["direction"], (3, 3)).T * told["spacing"]
        affine[:3, 3] = told["origin"]
        voxels = np.frombuffer(base64.b64decode(told["voxels"]), dtype).reshape(told["dimensions"], order="F")
        return Volume(voxels, LPS_TO_RAS @ affine)

    def segments(self) -> dict[int, str]:
        """Return names by segment number."""
        told = self.page.evaluate("Object.values(services.segmentationService.getSegmentations()[0].segments)")
        return {int(segment["segmentIndex"]): segment["label"] for segment in told}

    def colours(self, viewport: str) -> dict[str, tuple[int, ...]]:
        """Return red, green and blue of each segment by its name."""
        ask = "([viewport, index]) => services.segmentationService.getSegmentColor(viewport, '1', index)"
        segments = self.segments().items()
        return {name: tuple(self.page.evaluate(ask, [viewport, index]))[:3] for index, name in segments}

    def keep(self, name: str) -> None:
        """Renew a picture of the documentation, see ``app_folder``: the page goes to ``MONAI_EXT_PICTURES=FOLDER``."""
        if folder := os.environ.get("MONAI_EXT_PICTURES"):
            shown = Image.open(io.BytesIO(self.page.screenshot()))
            # Half the size of all colours; dithering would put a pattern into the grey of the scan.
            few = shown.convert("RGB").quantize(256, dither=Image.Dither.NONE)
            few.save(Path(folder) / name, optimize=True)


@pytest.fixture(scope="session")
def placed() -> type[Volume]:
    """Makes voxels and an affine into what can be looked up in millimetres."""
    return Volume


@pytest.fixture(scope="module")
def viewer(dicomweb_server: Any, chromium: str) -> Iterator[Viewer]:
    playwright_api = pytest.importorskip("playwright.sync_api", reason="needs Playwright: pip install playwright")
    with playwright_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=QUIET + SOFTWARE_WEBGL)
        context = browser.new_context(viewport={"width": 1400, "height": 900})
        context.set_default_timeout(WAIT_MS)
        server = dicomweb_server.url
        # Where the panel looks for the server; otherwise at port 8000.
        context.add_cookies([{"name": "MONAILABEL_SERVER_URL", "value": f"{server}/", "url": server}])
        yield Viewer(context.new_page(), server)
        browser.close()
