"""``python -m monai.bundle`` as a user meets it: one sentence for what can be mended, all else as it was."""

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from monai_ext.base import StoreError
from monai_ext.engines import end_in_a_sentence

CONFIG = {
    "imports": ["$import monai_ext.base", "$import monai_ext.engines as engines"],
    "initialize": ["$engines.end_in_a_sentence()"],
    # MONAI wraps the error twice: where the component is made, and where the expression is evaluated.
    "part": {"_target_": "monai_ext.base.check_window", "window": [5, 3]},
    "run": ["$len(@part)"],
}


def test_what_a_user_can_mend_ends_in_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG))
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(path)]
    found = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=300, cwd=tmp_path)
    assert found.returncode == 2
    last = found.stderr.splitlines()[-1]
    assert last == "error: window_hu: [5, 3] is not a window; give [low, high] in HU, for example [-175, 250]"
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize("module", ["pytest.__main__", "monai_ext.__main__", "mine", None])
def test_other_programs_keep_their_own_hook(monkeypatch: pytest.MonkeyPatch, module: str | None) -> None:
    run_as(monkeypatch, module)
    hook = sys.excepthook
    end_in_a_sentence()
    assert sys.excepthook is hook


def run_as(monkeypatch: pytest.MonkeyPatch, module: str | None) -> None:
    main = ModuleType("__main__")
    main.__spec__ = None if module is None else SimpleNamespace(name=module)  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, "__main__", main)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """What the command line says, and its exit code, when an error ends it."""
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    run_as(monkeypatch, "monai.bundle.__main__")
    end_in_a_sentence()

    def tell(error: BaseException) -> tuple[str, object]:
        code: object = 1
        try:
            sys.excepthook(type(error), error, error.__traceback__)
        except SystemExit as end:
            code = end.code
        return capfd.readouterr().err, code

    return tell


def wrapped(cause: BaseException) -> RuntimeError:
    error = RuntimeError("Failed to evaluate ConfigExpression")
    error.__cause__ = RuntimeError("Failed to instantiate component")
    error.__cause__.__cause__ = cause
    return error


def test_the_sentence_of_a_worker_process_is_found_below_its_traceback(told) -> None:
    # What torch makes of an error in a loader's worker: the same type, with the traceback as its text.
    text = "Caught StoreError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
    error = StoreError(f"{text}monai_ext.base.errors.StoreError: ct: torn; prepare it\n")
    assert told(wrapped(error)) == ("error: ct: torn; prepare it\n", 2)


def test_other_errors_keep_their_traceback_and_end_in_what_began_it(told) -> None:
    text, code = told(wrapped(ZeroDivisionError("by zero")))
    assert code == 1
    assert "RuntimeError: Failed to evaluate" in text
    assert text.splitlines()[-1] == "It began with ZeroDivisionError: by zero"


def test_an_error_by_itself_is_told_once(told) -> None:
    text, _ = told(ZeroDivisionError("by zero"))
    assert text.splitlines()[-1] == "ZeroDivisionError: by zero"


def test_an_error_met_while_handling_ours_is_not_called_ours(told) -> None:
    error = KeyError("a mistake of the program")
    error.__context__ = StoreError("ct: torn")
    assert told(error)[0].splitlines()[-1] == "KeyError: 'a mistake of the program'"


def test_an_interruption_says_how_to_go_on(told) -> None:
    text, code = told(KeyboardInterrupt())
    assert code == 130
    assert text.splitlines()[-1].startswith("interrupted: ")
    assert "Traceback" not in text
