"""What every test may use: the shared folders, one thread, and the --full switch."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="also run what is long or full-size (marked 'full')")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--full"):
        for item in items:
            if "full" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="long or full-size: runs with pytest --full"))


def _shared(part: str) -> Path:
    folder = Path(os.environ.get("MONAI_EXT_SHARED", REPOSITORY.parent / "shared")) / part
    if not folder.is_dir():
        pytest.skip(f"needs shared/{part} beside the checkout (the developers' data, not part of a clone)")
    return folder


@pytest.fixture(scope="session")
def shared_ct() -> Path:
    """Real CT volumes with third-party segmentations."""
    return _shared("ct")


@pytest.fixture(scope="session")
def shared_goldens() -> Path:
    """Numbers recorded from the authors' code."""
    return _shared("goldens")


@pytest.fixture(scope="session")
def shared_facts() -> Path:
    """Schemas and facts about data sets."""
    return _shared("facts")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    # Tests run side by side, a process a core; more threads each would only wait for one another.
    import torch

    torch.set_num_threads(1)
