"""What the GPU's table runs on: the versions of a machine, and packages brought to one without network."""

import importlib.metadata
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    """Say what this runs on."""
    names = ("torch", "triton", "monai", "numpy", "open_clip_torch", "blosc2")
    found: dict[str, Any] = {"date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", "python": platform.python_version()}
    found |= {name: version_of(name) or "missing" for name in names}
    ask = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        found["card"] = subprocess.run(ask, capture_output=True, encoding="utf-8", timeout=20).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        found["card"] = "unknown"
    return {**found, "cores": os.cpu_count()}


def bring(wheels: Path, out: Path) -> None:
    """Unpack the wheels of packages that are missing here, for this process and those of the parts.

    Raises:
        SystemExit: the folder holds no wheel, or pip refuses one.
    """
    found = sorted(wheels.glob("*.whl"))
    if not found:
        raise SystemExit(f"--wheels: {wheels} holds no wheel; fill it with pip download, or leave it out")
    missing = [str(path) for path in found if version_of(path.name.split("-")[0]) is None]
    site = out / "site"
    if missing:
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--target", str(site)]
        done = subprocess.run([*pip, *missing], capture_output=True, encoding="utf-8", errors="replace")
        if done.returncode:
            raise SystemExit(f"--wheels: pip could not install them:\n{done.stderr}")
    sys.path.append(str(site))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(site.resolve())]))


def version_of(name: str) -> str | None:
    """Return the version of a package that is installed, or ``None``."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
