"""Problems as a terminal shows them."""

import io

from rich.console import Console

from monai_ext.curation.problems import Problem, problems_table


def test_names_of_files_cannot_steer_the_terminal() -> None:
    evil = "x\nERROR: all\x1b[31m.nii"
    shown = io.StringIO()
    table = problems_table([Problem("scan.damaged", evil, f"{evil}: is damaged; get it again")])
    Console(file=shown, width=200).print(table)
    assert shown.getvalue().count(r"x\nERROR: all\x1b[31m.nii") == 2
    assert "\x1b" not in shown.getvalue()
