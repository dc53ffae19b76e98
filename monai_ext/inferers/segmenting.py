"""From a scan on a network's grid to labels on the scan's own grid, without all classes of all voxels at once."""

import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor

from monai_ext.base import InputError, SettingError, WriteError, case_id, replacing
from monai_ext.inferers.brick_sums import Brick
from monai_ext.inferers.bricks import BrickInferer
from monai_ext.inferers.mapped_volume import MappedVolume
from monai_ext.inferers.own_grid import OwnGrid
from monai_ext.inferers.stitching import Padded, Tiles
from monai_ext.outputs import write_labels
from monai_ext.outputs.labels import check_ending
from monai_ext.outputs.output_place import SCAN, check_free

_SETTLE = 64  # bricks after which files in memory are let go

Room = Callable[[tuple[int, ...], np.dtype], MappedVolume | np.ndarray]


@dataclass(frozen=True)
class Segmented:
    """Labels of a scan.

    Attributes:
        labels: ``(x, y, z)`` class of each voxel on the scan's own grid.
        affine: ``(4, 4)`` of that grid, as it was read.
        entropy: mean over the network's voxels in nats, 0 where it is certain; ``None`` unless asked for.
        body_found: false where the inferer's ``body_above`` left no window, so that everything is background.
    """

    labels: np.ndarray
    affine: np.ndarray
    entropy: float | None
    body_found: bool = True


def segment(
    image: MetaTensor,
    network: Callable[..., Tensor],
    inferer: BrickInferer,
    *,
    entropy: bool = False,
    labels_in: Room | None = None,
    probabilities_in: Room | None = None,
) -> Segmented:
    """Segment a scan brick by brick: logits are taken to its own grid linearly, and the highest one wins.

    The labels are those of the whole volume's logits, inverted with MONAI's ``Invertd`` and compared, but for voxels
    where classes are equal up to rounding.

    Args:
        image: ``(1, x, y, z)`` as ``load_ct`` gives it.
        network: from windows to logits, class 0 for background.
        inferer: lays the windows.
        entropy: also tell how uncertain the network is.
        labels_in: makes the volume of zeros for labels, of a shape and a type; in memory by default.
        probabilities_in: makes a volume for float16 probabilities ``(classes, x, y, z)`` on the scan's own grid.

    Raises:
        GeometryError: the image lies on a grid that ``load_ct`` does not make.
        InputError: the network's logits are not finite, of another size or of a single class; or the image is none.
        SettingError: the inferer is no `BrickInferer`.
    """
    _check_given(image, inferer)
    case = str(image.meta.get("case") or "scan")
    grid = OwnGrid.of(image)
    volume = image.as_tensor()
    sheet = _Sheet(grid, inferer, volume, labels_in or _in_memory, probabilities_in)
    doubt, body_found = 0.0, False
    try:
        for brick in inferer.bricks(volume, network):
            sheet.take(brick)
            body_found |= brick.logits is not None
            if entropy and brick.logits is not None:
                doubt += _entropy(brick.logits)
    except InputError as error:
        error.args = (f"{case}: {error}",)
        error.case = case
        raise
    if not body_found:
        logging.getLogger("monai_ext").warning(
            f"{case}: no body found, nothing is above body_above={inferer.body_above:g}, and all of it is background; "
            "choose a lower value, or leave it out"
        )
    affine = np.asarray(image.meta["original_affine"], dtype=np.float64)
    return Segmented(sheet.labels(), affine, doubt / volume[0].numel() if entropy else None, body_found)


def segment_to_file(
    path: str | os.PathLike[str],
    image: MetaTensor,
    network: Callable[..., Tensor],
    inferer: BrickInferer,
    names: Mapping[int, str],
    *,
    probabilities: str | os.PathLike[str] | None = None,
) -> Path:
    """Do as `segment`, with the labels in a file from the first brick on.

    Args:
        path: ends in ``.nii.gz`` or ``.nii``; see ``monai_ext.outputs.write_labels``. An earlier result of the
            same scan is replaced.
        image: see `segment`.
        network: see `segment`.
        inferer: see `segment`.
        names: the name of every class but 0.
        probabilities: a ``.npy`` file for float16 probabilities ``(classes, x, y, z)``; it takes 2 bytes a class and
            voxel of the scan.

    Returns:
        The path of the sidecar.

    Raises:
        InputError, GeometryError: see `segment`.
        SettingError: the names are not by number, told before the network runs; or see `segment`.
        LabelError: a class that was found has no name.
        WriteError: the name is no NIfTI's, the place is another scan's, or that of the probabilities is a folder, the
            labels' or the scan's, told before the network runs; or the files could not be written whole: none is left
            behind half-written.
    """
    _check_given(image, inferer)
    _check_names(names)
    path = Path(path)
    case = str(image.meta.get("case") or "scan")
    check_ending(path, case)
    check_free(path, case, image.meta.get(SCAN))
    if probabilities is not None:
        _check_apart(Path(probabilities), path, case, image)
    about = {SCAN: image.meta[SCAN]} if SCAN in image.meta else {}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as files:
            # Without a name: whatever ends this process, nothing of it stays.
            scratch = files.enter_context(tempfile.TemporaryFile(dir=path.parent))
            room = None
            if probabilities is not None:
                room = _npy(files.enter_context(files.enter_context(replacing(probabilities)).open("w+b")))
            found = segment(
                image,
                network,
                inferer,
                labels_in=lambda shape, dtype: MappedVolume(scratch, shape, dtype),
                probabilities_in=room,
            )
            about |= {} if found.body_found else {"body_found": False}
            return write_labels(path, found.labels, found.affine, names, case=case, about=about)
    except OSError as error:
        raise WriteError(
            f"{path.name}: could not be written ({error.strerror}); free space or choose a writable output folder, "
            "then run again",
            code="write.failed",
            case=case,
        ) from error


def _check_given(image: object, inferer: object) -> None:
    if not isinstance(image, MetaTensor) or image.ndim != 4 or len(image) != 1:
        given = f"a tensor of shape {tuple(image.shape)}" if isinstance(image, MetaTensor) else type(image).__name__
        raise InputError(
            f"image: {given} is no (1, x, y, z) image with its place; give what load_ct returns", code="inference.input"
        )
    if not isinstance(inferer, BrickInferer):
        raise SettingError(
            f"inferer: {type(inferer).__name__} gives no bricks; use monai_ext.inferers.BrickInferer",
            code="setting.inferer",
        )


def _check_names(names: object) -> None:
    if not isinstance(names, Mapping) or any(
        type(key) is bool or not isinstance(key, int) or not isinstance(name, str) for key, name in names.items()
    ):
        raise SettingError(
            f"names: {names!r} are no names by number; give for example {{1: 'liver', 2: 'spleen'}}",
            code="setting.names",
        )


def _check_apart(file: Path, labels: Path, case: str, image: MetaTensor) -> None:
    """Refuse a file of probabilities that would take the place of the labels, their sidecar, or the scan."""
    real, scan = Path(os.path.realpath(file)), Path(str(image.meta.get("filename_or_obj") or "")).name
    why = "is a folder" if file.is_dir() else None
    for other, what in (
        (labels, "the labels' own file"),
        (labels.with_name(f"{case_id(labels)}.json"), "their sidecar"),
    ):
        if os.path.realpath(other) == str(real) or (file.exists() and other.exists() and file.samefile(other)):
            why = f"is {what}"
    # Of the scan's place its name alone is known.
    if why is None and file.exists() and scan in (file.name, real.name):
        why = "has the name of the scan's own file"
    if why:
        raise WriteError(
            f"{case}: probabilities: {file.name} {why}; name a .npy file of its own",
            code="write.probabilities",
            case=case,
        )


class _Sheet:
    """The scan's own grid while it is filled."""

    def __init__(
        self, grid: OwnGrid, inferer: BrickInferer, volume: Tensor, labels_in: Room, probabilities_in: Room | None
    ) -> None:
        self.grid, self.padded = grid, Padded(all_classes=probabilities_in is not None)
        self.tiles = Tiles(grid, torch.device(inferer.device) if inferer.device is not None else volume.device)
        self.labels_in, self.probabilities_in = labels_in, probabilities_in
        self._rooms: list[MappedVolume | np.ndarray] = []
        self._count = 0

    def take(self, brick: Brick) -> None:
        if not self._rooms:
            self._open(brick.classes)
        self._put(brick)

    def labels(self) -> np.ndarray:
        room = self._rooms[0]
        return room.array if isinstance(room, MappedVolume) else room

    def _open(self, classes: int) -> None:
        if classes < 2:
            raise InputError(
                "the network makes a single class, and the highest one of one is always background; give it another",
                code="inference.output",
            )
        kind = next(np.dtype(kind) for kind in (np.uint8, np.int16, np.int32) if classes <= np.iinfo(kind).max + 1)
        self._rooms = [self.labels_in(self.grid.shape, kind)]
        if self.probabilities_in is not None:
            self._rooms.append(self.probabilities_in((classes, *self.grid.shape), np.dtype(np.float16)))
        arrays = [room.array if isinstance(room, MappedVolume) else room for room in self._rooms]
        self._ids = self.grid.in_ras(arrays[0])
        self._shares = np.moveaxis(self.grid.in_ras(np.moveaxis(arrays[1], 0, -1)), -1, 0) if arrays[1:] else None

    def _put(self, brick: Brick) -> None:
        block = self.padded(brick)
        if block is None:
            if self._shares is not None:
                self._shares[0, *self.tiles.whole(brick.place)] = 1
        else:
            for place, ids in self.tiles.labels(block):
                self._ids[place] = ids
            if self._shares is not None:
                for place, shares in self.tiles.probabilities(block):
                    self._shares[:, *place] = shares
        self._count += 1
        if self._count % _SETTLE == 0:
            for room in self._rooms:
                if isinstance(room, MappedVolume):
                    room.settle()


def _in_memory(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    return np.zeros(shape, dtype, order="F")


def _npy(file: IO[bytes]) -> Room:
    def room(shape: tuple[int, ...], dtype: np.dtype) -> MappedVolume:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        return MappedVolume(file, shape, dtype, "C")

    return room


def _entropy(logits: Tensor) -> float:
    total = 0.0
    for part in logits.split(8, dim=1):  # thin, for what is computed takes several times its memory
        log = torch.log_softmax(part.float(), dim=0)
        total -= float((log.exp() * log).sum(dtype=torch.float64))
    return total
