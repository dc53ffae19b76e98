"""Visits to stored volumes: which are opened, by weight, and where each visit's crops stand in the epoch."""

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from monai_ext.base import SettingError, derive_seed, is_number, rank, world
from monai_ext.engines.draws import Draw


class VisitPlan(Sampler[Draw]):
    """Plan an epoch as visits to volumes, several crops each, from (seed, epoch) alone.

    Volumes are visited by weight: as often as their share of the visits says, rounded up or down by a draw of the
    epoch, so that equal weights mean equal visits. The crops of a visit stand near enough in the epoch for the disk's
    cache to still hold the volume, and far enough apart for a batch to hold one of them only; volumes come and
    go one by one, so that reading is as even as the training. A visit belongs to one rank, and its random
    numbers to the visit: the samples of an epoch are the same for any number of ranks that divides the visits, and
    for any number of workers. Set ``epoch`` and ``start`` to resume at any step.

    Args:
        weights: one for each volume, 0 or more; only their proportions count.
        draws: crops per epoch over all ranks; rounded up to whole visits and a multiple of the ranks.
        seed: the run's seed.
        crops_per_visit: crops of a volume before it is left.
        spread: samples of the same rank, at least, between two crops of a visit, as far as there are enough
            volumes: the batch or more. 0 lets all crops of a visit follow one another.

    Raises:
        SettingError: no volume has a weight, a weight is negative, a number is not a whole one in its range, or a
            visit is longer than an epoch.
    """

    def __init__(
        self, weights: Sequence[float], draws: int, seed: int = 0, crops_per_visit: int = 8, spread: int = 64
    ) -> None:
        numbers = {"draws": (draws, 1), "crops_per_visit": (crops_per_visit, 1), "spread": (spread, 0)}
        for name, (value, least) in numbers.items():
            if not is_number(value, least) or int(value) != value:
                raise SettingError(
                    f"{name}: {value!r} is not a whole number from {least} on; correct it", code="setting.visits"
                )
        if crops_per_visit > draws:  # an epoch would be one visit to one volume, and longer than was asked for
            raise SettingError(
                f"crops_per_visit: {crops_per_visit} is more than the {draws} crops of an epoch; give {draws} or "
                "fewer, or more crops an epoch",
                code="setting.visits",
            )
        if not all(is_number(weight, 0) for weight in weights) or not any(weights):
            raise SettingError(
                f"weights: the {len(weights)} volumes need weights of 0 or more, and one above 0; correct the weights "
                "of the manifest or of the data sets, or prepare at least one scan",
                code="setting.weights",
            )
        self.weights = np.asarray(weights, np.float64)
        # By a power of two, which changes no digit: sums of the largest numbers are infinite, parts of the smallest 0.
        self.weights = np.ldexp(self.weights, -np.frexp(self.weights.max())[1])
        self.draws, self.seed = int(draws), seed
        self.crops_per_visit, self.spread = int(crops_per_visit), int(spread)
        self.epoch = 0
        self.start = 0

    def __len__(self) -> int:
        """Return the samples per epoch of one rank."""
        return self._visits() * self.crops_per_visit

    def __iter__(self) -> Iterator[Draw]:
        """Yield this rank's samples of the current epoch from ``start`` on."""
        position = np.arange(self.start, len(self))
        step, crop = np.divmod(position, self.crops_per_visit)
        # Crop c of a visit comes c times the gap after its first, and a step holds one crop c for each c, of as many
        # visits. The epoch is a circle, so that its end is as well mixed as its middle.
        own = (step - crop * self._gap()) % self._visits()
        visit = own * world() + rank()
        items = self._order(self._visits() * world())[visit]
        slots = visit * self.crops_per_visit + crop
        for item, slot in zip(items.tolist(), slots.tolist(), strict=True):
            yield Draw(item, self.epoch, slot)

    def another(self, draw: Draw, attempt: int) -> Draw:
        """Return the draw with another volume in its place, by weight and by the number of the attempt."""
        random = np.random.default_rng(derive_seed(self.seed, "another", draw.epoch, draw.slot, attempt))
        return draw._replace(item=int(random.choice(len(self.weights), p=self.weights / self.weights.sum())))

    def _visits(self) -> int:
        # of this rank
        return -(-self.draws // (self.crops_per_visit * world()))

    def _gap(self) -> int:
        """Return the steps between two crops of a visit; a step is as many samples as a visit has crops."""
        if not self.spread:
            return 0
        most = (self._visits() - 1) // self.crops_per_visit  # else the circle would close on itself
        return max(1, min(-(-self.spread // self.crops_per_visit), most))

    def _order(self, visits: int) -> np.ndarray:
        """Return the volume of each visit of the epoch, by systematic sampling (Madow 1949)."""
        random = np.random.default_rng(derive_seed(self.seed, "visits", self.epoch))
        volumes = random.permutation(np.flatnonzero(self.weights))
        share = np.cumsum(self.weights[volumes])
        ends = share * (visits / share[-1])
        ends[-1] = visits  # whatever rounding made of it
        counts = np.diff(np.floor(ends + random.random()), prepend=0).astype(np.int64)
        # The visits to one volume are spaced evenly over the epoch, each at a random place of its part.
        nth = np.arange(visits) - np.repeat(np.cumsum(counts) - counts, counts)
        place = (nth + random.random(visits)) / np.repeat(counts, counts)
        order: np.ndarray = np.repeat(volumes, counts)[np.argsort(place, kind="stable")]
        return order
