"""Reading scans needs no torch: tools that only list or check scans start in a fraction of the time.

Nor does a process that has scans read by another one hold the libraries that read them: 90 MB for each worker.
"""

import subprocess
import sys


def test_volumes_load_without_torch_and_itk() -> None:
    names = "('torch', 'monai', 'SimpleITK')"
    code = f"import monai_ext.volumes, sys; print([name for name in {names} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert found.stdout.strip() == "[]"
