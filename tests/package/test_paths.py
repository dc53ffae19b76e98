"""Bundles are found in a checkout, in an editable install and in a wheel; the public surface is consistent."""

import configparser
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import monai_ext

REPOSITORY = Path(__file__).resolve().parents[2]
BUNDLES = ["aa_clip_lesion_localization", "hi_end_mae_ct_pretrain", "hi_end_mae_ct_segmentation"]


@pytest.mark.parametrize("name", BUNDLES)
def test_bundles_are_found_here(name: str) -> None:
    assert (Path(monai_ext.bundle_path(name)) / "configs" / "train.json").is_file()


def test_an_unknown_bundle_lists_those_that_exist() -> None:
    with pytest.raises(ValueError, match=r"no 'nonesuch' is shipped; choose one of .*hi_end_mae_ct_pretrain"):
        monai_ext.bundle_path("nonesuch")


def test_every_room_is_packaged() -> None:
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    listed = set(setup["options"]["packages"].split())
    rooms = {
        ".".join(path.parent.relative_to(REPOSITORY).parts) for path in (REPOSITORY / "monai_ext").rglob("__init__.py")
    }
    assert listed == rooms | {"monai_ext.bundles", "monai_ext.data_manifests"}


def test_a_wheel_holds_bundles_manifests_and_templates(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    # A copy, because setuptools leaves its build folder beside the sources.
    copy = tmp_path / "copy"
    subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(copy)], check=True)
    subprocess.run([*command, "-w", str(tmp_path), str(copy)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    code = "import monai_ext; print(monai_ext.bundle_path('hi_end_mae_ct_pretrain'))"
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path / "installed",
        env={"PYTHONPATH": str(tmp_path / "installed")},
        check=True,
        capture_output=True,
        encoding="utf-8",
    ).stdout.strip()
    assert Path(found) == tmp_path / "installed" / "monai_ext" / "bundles" / "hi_end_mae_ct_pretrain"
    for part in ("configs/train.json", "configs/logging.conf", "docs/README.md", "LICENSE", "large_files.yml"):
        assert (Path(found) / part).is_file(), part
    assert (tmp_path / "installed" / "monai_ext" / "demo" / "report.html.j2").is_file()
    for part in ("README.md", "manifest.schema.json", "lists/voco_10k.json"):
        assert (tmp_path / "installed" / "monai_ext" / "data_manifests" / part).is_file(), part


def test_no_public_class_bears_a_name_of_monai() -> None:
    # MONAI's ComponentLocator scans this package too: a shared name would shadow MONAI's own.
    import importlib.util
    import pkgutil

    import monai.engines
    import monai.handlers
    import monai.inferers
    import monai.losses
    import monai.metrics
    import monai.networks.nets
    import monai.transforms

    theirs = {
        name
        for module in (
            monai.engines,
            monai.handlers,
            monai.inferers,
            monai.losses,
            monai.metrics,
            monai.networks.nets,
            monai.transforms,
        )
        for name in dir(module)
    }
    ours: dict[str, str] = {}
    for info in pkgutil.walk_packages(monai_ext.__path__, "monai_ext."):
        if info.name.endswith("__main__") or ".bundles" in info.name or ".data_manifests" in info.name:
            continue
        if info.name.startswith("monai_ext.label.") and not importlib.util.find_spec("monailabel"):
            continue  # looked at where the extra is installed
        module = importlib.import_module(info.name)
        for name, value in vars(module).items():
            if isinstance(value, type) and value.__module__ == info.name and not name.startswith("_"):
                assert ours.setdefault(name, info.name) == info.name, f"{name} twice"
    assert not set(ours) & theirs
