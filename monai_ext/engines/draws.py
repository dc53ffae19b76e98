"""Which scan and which random numbers each training sample uses, planned from (seed, epoch)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from monai.transforms import Compose, Randomizable
from monai.utils import MAX_SEED
from torch.utils.data import Dataset, Sampler

from monai_ext.base import SettingError, derive_seed, rank, world
from monai_ext.engines.scans import plain_errors


class Draw(NamedTuple):
    """One planned sample: ``item`` of the data; epoch and slot, from which its random numbers derive."""

    item: int
    epoch: int
    slot: int


class DrawPlan(Sampler[Draw]):
    """Plan the samples of each epoch from (seed, epoch) alone.

    Every pass over the data visits all items once, in a new order; an epoch takes as many passes as
    it needs. Ranks share the plan and take every ``world``-th slot, so no sample is drawn twice; the
    number of workers plays no part. Set ``epoch`` and ``start`` to resume at any step.

    Args:
        items: number of scans.
        draws: samples per epoch over all ranks; rounded up to a multiple of the ranks.
        seed: the run's seed.
        shuffle: ``False`` visits the items in order (validation).

    Raises:
        SettingError: no items or no draws.
    """

    def __init__(self, items: int, draws: int, seed: int = 0, shuffle: bool = True) -> None:
        if items < 1 or draws < 1:
            raise SettingError(
                f"plan: {items} scans and {draws} samples an epoch leave nothing to draw; "
                "prepare at least one scan and ask for at least one sample",
                code="setting.draws",
            )
        self.items, self.draws, self.seed, self.shuffle = items, draws, seed, shuffle
        self.epoch = 0
        self.start = 0

    def __len__(self) -> int:
        """Return the samples per epoch of one rank."""
        return -(-self.draws // world())

    def __iter__(self) -> Iterator[Draw]:
        """Yield this rank's samples of the current epoch from ``start`` on."""
        ranks = world()
        order = self._order(len(self) * ranks)
        for position in range(self.start, len(self)):
            slot = position * ranks + rank()
            yield Draw(int(order[slot]), self.epoch, slot)

    def another(self, draw: Draw, attempt: int) -> Draw:
        """Return the draw with another scan in its place, every one as likely, by the number of the attempt."""
        generator = np.random.default_rng(derive_seed(self.seed, "another", draw.epoch, draw.slot, attempt))
        return draw._replace(item=int(generator.integers(self.items)))

    def _order(self, length: int) -> np.ndarray:
        passes = -(-length // self.items)
        if not self.shuffle:
            return np.tile(np.arange(self.items), passes)[:length]
        generator = np.random.default_rng(derive_seed(self.seed, "order", self.epoch))
        return np.concatenate([generator.permutation(self.items) for _ in range(passes)])[:length]


class DrawDataset(Dataset[Any]):
    """Apply random transforms whose numbers derive from (seed, epoch, slot) of the draw.

    Args:
        data: the scans; a plain sequence, or a data set such as MONAI's ``CacheDataset``.
        transform: transforms, random ones among them; ``set_random_state(seed)`` is called before each sample.
        seed: the run's seed.
        purpose: keeps the random numbers of training and validation apart.
    """

    def __init__(
        self,
        data: Sequence[Any] | Dataset[Any],
        transform: Callable[[Any], Any],
        seed: int = 0,
        purpose: str = "train",
    ) -> None:
        self.data, self.transform, self.seed, self.purpose = data, transform, seed, purpose

    def __len__(self) -> int:
        """Return the number of scans."""
        return len(self.data)  # type: ignore[arg-type]

    def __getitem__(self, draw: Draw | int) -> Any:
        """Return the transformed sample; a plain index is the draw (index, epoch 0, slot index)."""
        if isinstance(draw, int):
            draw = Draw(draw, 0, draw)
        if hasattr(self.transform, "set_random_state"):
            reseed(self.transform, derive_seed(self.seed, self.purpose, draw.epoch, draw.slot))
        item = self.data[draw.item]
        with plain_errors():  # a loader's worker process sends home an error's text, not its cause
            return self.transform(dict(item) if isinstance(item, Mapping) else item)


def reseed(transform: Any, seed: int) -> None:
    """Do as ``transform.set_random_state(seed=seed)``, without making new generators.

    NumPy seeds a new one from the system's entropy first, which takes a hundred times as long as seeding it anew: for
    a chain of ten random transforms as long as everything that they then do to a crop.
    """
    kind = type(transform)
    own = isinstance(vars(transform).get("R"), np.random.RandomState)  # the class has one too, which all would share
    if own and kind.set_random_state is Randomizable.set_random_state:
        transform.R.seed(seed % MAX_SEED)
    elif own and kind.set_random_state is Compose.set_random_state:
        transform.R.seed(seed % MAX_SEED)
        for part in transform.transforms:
            if isinstance(part, Randomizable):
                reseed(part, int(transform.R.randint(MAX_SEED, dtype="uint32")))
    else:
        transform.set_random_state(seed=seed)


class RankShare(Sampler[int]):
    """Deal the indices of a data set out to the ranks in order; alone, a process takes them all.

    No index is repeated to even out the shares. Where there are fewer indices than ranks, every rank
    takes all of them: a rank without work would leave the others waiting.
    """

    def __init__(self, data: Dataset[Any]) -> None:
        self.size = len(data)  # type: ignore[arg-type]

    def __len__(self) -> int:
        """Return how many indices are this rank's."""
        return len(self._share())

    def __iter__(self) -> Iterator[int]:
        """Yield this rank's indices."""
        yield from self._share()

    def _share(self) -> range:
        return range(self.size) if self.size < world() else range(rank(), self.size, world())
