"""The command line as a user meets it."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Verb = Callable[..., int]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "monai_ext", *words], capture_output=True, encoding="utf-8", timeout=120
    )


def test_help_names_every_verb() -> None:
    found = run("--help")
    assert found.returncode == 0
    for verb in (
        "demo",
        "prepare",
        "localize",
        "few-shot",
        "import-adapters",
        "checkpoint",
        "bundle-path",
        "config-path",
    ):
        assert verb in found.stdout


def test_config_path_prints_a_file_that_exists() -> None:
    found = run("config-path", "hi_end_mae_ct_pretrain", "train")
    assert Path(found.stdout.strip()).is_file()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("config-path", "hi_end_mae_ct_pretrain", "nonesuch"), "has no configuration 'nonesuch'; it has"),
        (("bundle-path", "nonesuch"), "no 'nonesuch' is shipped; choose one of"),
    ],
)
def test_what_a_user_can_mend_is_one_sentence_and_exit_code_2(words: tuple[str, ...], sentence: str) -> None:
    found = run(*words)
    assert found.returncode == 2
    assert sentence in found.stderr
    assert "Traceback" not in found.stderr


def test_a_verb_that_needs_torch_ends_so_too(verb: Verb, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert verb("demo", "--minutes", "0", "--output", str(tmp_path / "demo")) == 2
    told = capfd.readouterr().err
    assert "minutes: 0 leaves no time to train" in told
    assert "Traceback" not in told
    assert not (tmp_path / "demo").exists()
