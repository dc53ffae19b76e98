"""Real parts for the tests of the MONAI Label app: Orthanc, a study in it, and the label server beside it.

A file of tests stays in one process (``--dist loadfile``), for each process starts a server and an Orthanc of its own.
"""

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
import pytest

INSTALL = "sudo apt-get install orthanc orthanc-dicomweb dicom3tools chromium"
ORTHANC_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
STARTUP_S = 300  # importing torch and monai takes a busy machine most of it


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Any:
    """Tell the fault campaign what became of each bad request of test_security.py, which tests/faults adds up."""
    if Path(pyfuncitem.path).name != "test_security.py":
        return (yield)
    outcome = "silent"
    try:
        result = yield
        outcome = "caught"
    except pytest.skip.Exception:
        outcome = ""
        raise
    finally:
        if outcome:
            pyfuncitem.user_properties.append(("fault", ["server inputs", pyfuncitem.name, outcome]))
    return result


@dataclass(frozen=True)
class Orthanc:
    """A PACS of this test run's own: where it answers, and to whom."""

    port: int
    user: str
    password: str = field(repr=False)

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def dicomweb(self) -> str:
        return f"{self.root}/dicom-web"

    @contextlib.contextmanager
    def client(self) -> Iterator[Any]:
        """Open a DICOMweb client, and leave no connection open: that would be a warning, so an error."""
        from dicomweb_client import DICOMwebClient
        from dicomweb_client.session_utils import create_session_from_user_pass

        with create_session_from_user_pass(self.user, self.password) as session:
            session.trust_env = False  # a proxy of the machine is not asked for loopback
            yield DICOMwebClient(self.dicomweb, session=session)

    def forget(self, uid: str) -> None:
        """Delete a study, series or instance, so that the next test finds what it expects."""
        import requests

        login = (self.user, self.password)
        found = requests.post(f"{self.root}/tools/lookup", data=uid, auth=login, timeout=10).json()
        assert found, f"Orthanc holds no {uid}"
        for item in found:
            requests.delete(self.root + item["Path"], auth=login, timeout=10).raise_for_status()


@dataclass(frozen=True)
class StoredSeries:
    """The real series as it was pushed into Orthanc."""

    folder: Path
    study: str
    series: str
    datasets: list[pydicom.Dataset] = field(repr=False)


@dataclass(frozen=True)
class LabelServer:
    """The label server as a user starts it, with all that it may write to."""

    url: str
    app: Path
    home: Path
    temporary: Path
    log: Path
    port: int = 0


def needed(program: str) -> str:
    """Return the program's path; skip the test where it is not installed, except in CI."""
    found = shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if found is None:
        absent(program)
    return found


def absent(what: str) -> None:
    message = f"needs {what}: {INSTALL}"
    pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(answers: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    import requests

    end = time.monotonic() + STARTUP_S
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            if answers():
                return
        except requests.ConnectionError:
            pass
        time.sleep(0.1)
    state = "does not answer" if process.poll() is None else f"ended with {process.returncode}"
    pytest.fail(f"{process.args[0]} {state}:\n{log.read_text(encoding='utf-8', errors='replace')[-3000:]}")


def own_address() -> str | None:
    """Return an address at which other machines would find this one, if there is any."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.1", 9))  # sends nothing; only asks the routing table
        except OSError:
            return None
        return str(probe.getsockname()[0])


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the process and its children; what they would still save is thrown away anyway."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="session")
def chromium() -> str:
    """Debian's browser."""
    return needed("chromium")


@pytest.fixture(scope="session")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """Debian's Orthanc with DICOMweb, which answers only this machine, and only with a password made up here.

    Orthanc 1.10 listens on every address and has no option for less. A private network namespace would close the
    port for good, but containers and some kernels refuse one to ordinary users, and the browser and the tests would
    have to be inside it as well. So Orthanc itself must turn other addresses away, which is tried before
    anything is stored; the DICOM port stays shut.
    """
    pytest.importorskip("dicomweb_client", reason="needs MONAI Label: pip install 'monai-ext[label]'")
    import requests

    program = needed("Orthanc")
    if not ORTHANC_PLUGIN.is_file():
        absent("orthanc-dicomweb")
    folder = tmp_path_factory.mktemp("orthanc")
    pacs = Orthanc(free_port(), "tests", secrets.token_hex(16))
    settings = {
        "Name": "tests",
        "HttpPort": pacs.port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {pacs.user: pacs.password},
        "DicomServerEnabled": False,
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [str(ORTHANC_PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    configuration, log = folder / "orthanc.json", folder / "orthanc.log"
    configuration.touch(mode=0o600)
    configuration.write_text(json.dumps(settings), encoding="utf-8")
    with log.open("wb") as out:
        process = subprocess.Popen([program, str(configuration)], stdout=out, stderr=out, start_new_session=True)
    try:
        login = (pacs.user, pacs.password)
        wait_for(lambda: requests.get(f"{pacs.root}/system", auth=login, timeout=10).ok, process, log)
        outside = own_address()
        if outside:
            answer = requests.get(f"http://{outside}:{pacs.port}/system", auth=login, timeout=10)
            assert answer.status_code == 401, "Orthanc answers other machines: nothing is stored in it"
        yield pacs
    finally:
        stop(process)


@pytest.fixture(scope="session")
def stored_series(orthanc: Orthanc, repaired_jpeg2000: Path) -> StoredSeries:
    """The real series in Orthanc, compressed as the scanner's archive had it."""
    datasets = [pydicom.dcmread(path) for path in sorted(repaired_jpeg2000.iterdir())]
    with orthanc.client() as client:
        reply = client.store_instances(datasets)
    assert len(reply.ReferencedSOPSequence) == len(datasets)
    first = datasets[0]
    return StoredSeries(repaired_jpeg2000, str(first.StudyInstanceUID), str(first.SeriesInstanceUID), datasets)


@contextlib.contextmanager
def serving(
    folder: Path, app: Path, studies: str, settings: dict[str, str], answers: int = 200
) -> Iterator[LabelServer]:
    """Start the real label server as a user does, in an environment whose every writable place is known."""
    import requests

    port = free_port()
    server = LabelServer(
        f"http://127.0.0.1:{port}", app, folder / "home", folder / "temporary", folder / "server.log", port
    )
    for place in (server.home, server.temporary):
        place.mkdir()
    own = {"HOME": str(server.home), "TMPDIR": str(server.temporary), "OMP_NUM_THREADS": "1"}
    environment = os.environ | own | settings
    command = [sys.executable, "-m", "monai_ext", "label-serve", "--app", str(app), "--studies", studies]
    command += ["--port", str(port)]
    with server.log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment, cwd=folder, start_new_session=True)
    try:
        wait_for(lambda: requests.get(f"{server.url}/info/", timeout=90).status_code == answers, process, server.log)
        yield server
    finally:
        stop(process)


@pytest.fixture(scope="session")
def start_server() -> Callable[..., contextlib.AbstractContextManager[LabelServer]]:
    """Starts a label server of a test's own."""
    return serving


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the tiny segmenter and adapters of the small CLIP, both never trained: quick, and full of labels."""
    import torch
    from monai.bundle import ConfigParser

    from monai_ext import bundle_path
    from monai_ext.demo.small_clip import load_small_clip
    from monai_ext.networks import AAClip, save_adapters

    folder = tmp_path_factory.mktemp("models")
    parser = ConfigParser()
    configs = Path(bundle_path("hi_end_mae_ct_segmentation")) / "configs"
    parser.read_config([str(configs / name) for name in ("inference.json", "tiny.json")])
    torch.manual_seed(11)
    torch.save(parser.get_parsed_content("network_def").state_dict(), folder / "model.pt")
    torch.manual_seed(13)
    model = AAClip(load_small_clip(32), levels=(1, 2, 3, 4))
    save_adapters(model, folder / "adapters.safetensors")
    return folder


@pytest.fixture(scope="session")
def app_folder(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An app with both models, written by the command line; it is copied, never served in place.

    ``MONAI_EXT_LABEL_APP=FOLDER`` takes an app that was written beforehand, such as one whose models were trained, so
    that the pictures of the documentation show more than noise; theirs has the weights of ``tests/benchmarks/real_ct.py
    --pretrain 600 --air 36``, and the demonstration's adapters at an ``image_size`` of 248. This renews them::

        MONAI_EXT_LABEL_APP=FOLDER MONAI_EXT_PICTURES=docs/images python -m pytest tests/label/ohif/test_panel.py

    """
    pytest.importorskip("monailabel", reason="needs MONAI Label: pip install 'monai-ext[label]'")
    if written := os.environ.get("MONAI_EXT_LABEL_APP"):
        return Path(written)
    from monai_ext.demo.adaptation import CLIP

    folder = tmp_path_factory.mktemp("label") / "app"
    chosen = {**CLIP, "image_size": 64, "threshold": 0.02, "skip_background": True, "batch_size": 16}
    command = [sys.executable, "-m", "monai_ext", "label-app", "--output", str(folder), "--tiny"]
    command += ["--weights", str(models / "model.pt"), "--adapters", str(models / "adapters.safetensors")]
    command += ["--class", "organ", "--class", "liver"]
    for name, value in chosen.items():
        command += ["--set", f"localization.{name}={json.dumps(value)}"]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def dicomweb_server(
    orthanc: Orthanc, stored_series: StoredSeries, app_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LabelServer]:
    """The real label server on Orthanc."""
    login = {"MONAI_LABEL_DICOMWEB_USERNAME": orthanc.user, "MONAI_LABEL_DICOMWEB_PASSWORD": orthanc.password}
    folder = tmp_path_factory.mktemp("on_orthanc")
    app = folder / "app"
    shutil.copytree(app_folder, app)
    with serving(folder, app, orthanc.dicomweb, login) as server:
        yield server


@pytest.fixture(scope="session")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three CT volumes of prime sizes: RAS, LPS, and oblique with three spacings; of each a label map."""
    import nibabel as nib
    import numpy as np
    from scipy import ndimage

    folder = tmp_path_factory.mktemp("scans")
    shape = (31, 37, 29)
    turn = np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
    tilt = np.array([[1.0, 0.0, 0.0], [0.0, 0.96, -0.28], [0.0, 0.28, 0.96]])
    directions = {"ras": np.eye(3), "lps": np.diag([-1.0, -1.0, 1.0]), "oblique": turn @ tilt}
    for number, (name, direction) in enumerate(directions.items()):
        rng = np.random.default_rng(number)
        affine = np.eye(4)
        affine[:3, :3] = direction * [3.1, 2.9, 4.3]
        affine[:3, 3] = [-50.5, 61.25, -700.125]
        smooth = ndimage.gaussian_filter(rng.normal(size=shape), 3)
        body = np.zeros(shape, bool)
        body[2:-2, 2:-2, :] = True
        hu = np.where(body, np.clip(smooth / smooth.std() * 60 + 40, -150, 240), -1000).astype(np.int16)
        labels = np.where(body, np.digitize(smooth / smooth.std(), [-0.7, 0.0, 0.7]), 0).astype(np.uint8)
        (folder / "labels_of").mkdir(exist_ok=True)
        for place, values in ((folder / f"{name}.nii.gz", hu), (folder / "labels_of" / f"{name}.nii.gz", labels)):
            image = nib.Nifti1Image(values, affine)
            image.set_sform(affine, 1)
            image.set_qform(affine, 1)
            image.header.set_xyzt_units(2)
            nib.save(image, place)
    return folder


@pytest.fixture(scope="session")
def server(app_folder: Path, scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelServer]:
    """The real label server on a folder of scans, with a file beside it that no client may reach."""
    folder = tmp_path_factory.mktemp("served")
    app, studies = folder / "app", folder / "studies"
    shutil.copytree(app_folder, app)
    studies.mkdir()
    for path in scans.glob("*.nii.gz"):
        shutil.copy(path, studies)
    (folder / "secret.nii.gz").write_bytes((studies / "ras.nii.gz").read_bytes())
    with serving(folder, app, str(studies), {}) as started:
        yield started
