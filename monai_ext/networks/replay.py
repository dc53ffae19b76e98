"""Recording what a network does on a CUDA device once, and replaying it: for small batches that the host holds up."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

_KEPT = 4  # recordings: a full batch, an epoch's last one, and both in another precision
_WARM_UP = 2  # calls before recording: kernels are chosen and their workspaces made there


class Recording(NamedTuple):
    """A graph with what it reads and writes.

    Attributes:
        graph: to replay.
        given: copies of the inputs; the graph reads these.
        made: the outputs; the graph writes these.
        weights: addresses of all weights when it was recorded.
    """

    graph: Any
    given: list[Tensor]
    made: Sequence[Tensor]
    weights: list[int]


class Replayed:
    """Computes without gradients by replaying a recording of the same kernels, on CUDA devices.

    One recording is made for each shape, number format and autocast. It reads the weights where they lie, so values
    that change are seen; weights that moved are noticed, and it is made anew. Elsewhere, and where gradients are asked
    for, the function is called.

    A recording takes the memory of a forward pass for as long as it is kept. No other thread may call the same network
    meanwhile.

    Args:
        function: of tensors, returns tensors. It must do the same on each call and never wait for the device.
        weights: returns the tensors that it reads beside its arguments.
    """

    def __init__(self, function: Callable[..., Sequence[Tensor]], weights: Callable[[], Iterable[Tensor]]) -> None:
        self.function, self.weights = function, weights
        self._recordings: OrderedDict[tuple[Any, ...], Recording] = OrderedDict()

    def __call__(self, *given: Tensor) -> Sequence[Tensor]:
        """Return what the function returns, in tensors of the caller's own."""
        if not given[0].is_cuda or torch.is_grad_enabled():
            return self.function(*given)
        # Recordings outlive the caller's inference mode, whose tensors nobody may write to later.
        with torch.inference_mode(False), torch.no_grad():
            recording = self._recording(given)
            for ours, theirs in zip(recording.given, given, strict=True):
                ours.copy_(theirs)
            recording.graph.replay()
            return [one.clone() for one in recording.made]

    def forget(self) -> None:
        """Free the recordings' memory."""
        self._recordings.clear()

    def _recording(self, given: Sequence[Tensor]) -> Recording:
        key = (*((tuple(one.shape), one.dtype, one.device) for one in given), _autocast())
        places = [one.data_ptr() for one in self.weights()]
        if key in self._recordings and self._recordings[key].weights == places:
            self._recordings.move_to_end(key)
            return self._recordings[key]
        self._recordings.pop(key, None)
        if len(self._recordings) == _KEPT:
            self._recordings.popitem(last=False)
        self._recordings[key] = self._record(given, places)
        return self._recordings[key]

    def _record(self, given: Sequence[Tensor], places: list[int]) -> Recording:
        copies = [one.clone() for one in given]
        device, (enabled, dtype) = given[0].device, _autocast()
        # Weights that autocast remembers from elsewhere would be read after they are gone.
        with torch.cuda.device(device), torch.autocast("cuda", dtype, enabled, cache_enabled=False):
            aside = torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                for _ in range(_WARM_UP):
                    self.function(*copies)
            torch.cuda.current_stream().wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            # Other threads may go on allocating.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                made = self.function(*copies)
        return Recording(graph, copies, made, places)


class ReplayedTraining:
    """Computes with gradients by replaying a recording of the forward and one of the backward pass, on CUDA devices.

    The first shape that comes is recorded; others, such as an epoch's last batch, are computed. What it returns, and
    the gradients of the parameters, are overwritten by the next call: gradients cannot be added up over batches.

    Args:
        make: returns a module that maps a tensor to a tuple of tensors, a new one at each call, on the same parameters.
    """

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        self.make, self.plain = make, make()
        self._key: tuple[Any, ...] | None = None
        self._recorded: Any = None

    def __call__(self, given: Tensor) -> tuple[Tensor, ...]:
        """Return what the module returns."""
        answer: tuple[Tensor, ...]
        if not given.is_cuda or not torch.is_grad_enabled():
            answer = self.plain(given)
            return answer
        key = (tuple(given.shape), given.dtype, given.device, _autocast())
        if self._key is None:
            enabled, dtype = _autocast()
            with torch.autocast("cuda", dtype, enabled, cache_enabled=False):
                self._recorded = torch.cuda.make_graphed_callables(self.make(), (given.clone(),))
            self._key = key
        answer = self._recorded(given) if key == self._key else self.plain(given)
        return answer


def _autocast() -> tuple[bool, torch.dtype]:
    return torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
