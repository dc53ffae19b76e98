"""The end of a run of prepare, as it is shown and written down."""

import csv
import io
from pathlib import Path

from rich.console import Console

from monai_ext.volumes import PrepareSummary
from monai_ext.volumes.prepare_job import Outcome

EVIL = "x\nERROR: all\x1b[31m.nii"
SPELLED = r"x\nERROR: all\x1b[31m.nii"


def test_names_of_files_cannot_steer_the_terminal_or_break_the_list(tmp_path: Path) -> None:
    failed = [Outcome("x", "failed", f"{EVIL}: is empty; leave it out", "scan.empty")]
    summary = PrepareSummary([], [], failed, [EVIL])
    shown = io.StringIO()
    Console(file=shown, width=200).print(summary.table())
    assert shown.getvalue().count(SPELLED) == 2
    assert "\x1b" not in shown.getvalue()
    summary.write_failed(tmp_path / "failed.csv")
    text = (tmp_path / "failed.csv").read_text(encoding="utf-8")
    assert list(csv.reader(text.splitlines()))[1:] == [["x", "scan.empty", f"{SPELLED}: is empty; leave it out"]]
