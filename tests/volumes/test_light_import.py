"""Reading scans needs no torch: tools that only list or check scans start in a fraction of the time."""

import subprocess
import sys


def test_volumes_load_without_torch() -> None:
    code = "import monai_ext.volumes, sys; print([name for name in ('torch', 'monai') if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert found.stdout.strip() == "[]"
