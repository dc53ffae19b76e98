"""What tests on a card share: the card, networks on it, and a step of the bundle's."""

import os
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

# Read when the first product is taken on a card: without it products add up in any order.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@pytest.fixture(scope="session")
def card() -> Any:
    """The first CUDA card; without one these tests are skipped."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA card")
    return torch.device("cuda", 0)


@pytest.fixture
def pretraining_network(card: Any) -> Callable[..., Any]:
    """Build a pretraining network on the card, of one of the published sizes."""
    import torch

    from monai_ext.networks import HiEndMAE

    def build(size: str = "base_p16", **overrides: Any) -> Any:
        torch.manual_seed(4)
        with card:  # filled there: on a CPU it takes longer than the tests
            network = getattr(HiEndMAE, size)(**overrides)
        # Positions are made by NumPy, on the CPU.
        return network.to(card).train()

    return build


@pytest.fixture
def pretraining_job(card: Any) -> Callable[..., Any]:
    """What a trainer hands to a step."""
    from monai_ext.engines import ReconstructionLoss, make_adamw, prepare_volumes

    def build(network: Any, lr: float = 1e-4, length: int = 1000) -> SimpleNamespace:
        return SimpleNamespace(
            network=network,
            optimizer=make_adamw(network, lr),
            inferer=lambda image, net: net(image),
            loss_function=ReconstructionLoss(),
            prepare_batch=prepare_volumes,
            non_blocking=True,
            fire_event=lambda event: None,
            state=SimpleNamespace(iteration=0, epoch_length=length, device=card, output=None),
        )

    return build


@pytest.fixture
def volumes(card: Any) -> Callable[..., Any]:
    """Draw batches of crops on the CPU, pinned as a loader hands them over; the same for a number."""
    import torch

    def draw(number: int, batch: int = 2, size: int = 96) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(number)
        return {"image": torch.rand(batch, 1, size, size, size, generator=generator).pin_memory()}

    return draw


@pytest.fixture
def exact_order() -> Iterator[None]:
    """Let the card add up in one order, so that runs compare bit for bit."""
    import torch

    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def _leave_the_memory_to_others() -> Iterator[None]:
    yield
    import torch

    torch.compiler.reset()
    torch.cuda.empty_cache()
