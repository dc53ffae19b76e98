"""The page "MONAI Label in five minutes": its commands, as they stand there, one after another."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

pytest.importorskip("monailabel", reason="needs MONAI Label: pip install 'monai-ext[label]'")

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "monai-label.md"
ADDRESS = "http://127.0.0.1:8000"


def block(name: str) -> str:
    found = re.search(rf"<!-- {name} -->\n```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found, f"the page marks no block {name}"
    return found[1]


def port_is_free(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_the_page_installs_the_extra() -> None:
    assert "pip install '.[label]'" in block("install")


def test_the_page_works_as_it_stands(tmp_path: Path) -> None:
    import requests

    if not port_is_free(8000):
        pytest.skip("port 8000, which the page names, is in use")
    programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # as after "activate"
    environment = {**os.environ, "PATH": programs, "HOME": str(tmp_path)}

    def run(text: str) -> None:
        subprocess.run(["bash", "-euo", "pipefail", "-c", text], cwd=tmp_path, env=environment, check=True)

    run(block("demo"))
    with (tmp_path / "server.log").open("wb") as log:
        serving = subprocess.Popen(
            ["bash", "-c", block("serve")],
            cwd=tmp_path,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        end = time.monotonic() + 120
        while True:
            assert serving.poll() is None, (tmp_path / "server.log").read_text(encoding="utf-8")
            assert time.monotonic() < end
            try:
                if requests.get(f"{ADDRESS}/info/", timeout=30).ok:
                    break
            except requests.ConnectionError:
                time.sleep(0.5)
        run(block("client"))
    finally:
        os.killpg(serving.pid, signal.SIGKILL)
        serving.wait()
    organs = nib.load(tmp_path / "organs.nii.gz")
    (label,) = (tmp_path / "demo" / "phantoms" / "images" / "labels" / "final").glob("*.nii.gz")
    image = nib.load(tmp_path / "demo" / "phantoms" / "images" / label.name)
    assert organs.shape == image.shape
    assert np.array_equal(organs.affine, image.affine)
    assert len(np.unique(organs.dataobj)) > 2
    assert label.read_bytes() == (tmp_path / "organs.nii.gz").read_bytes()
