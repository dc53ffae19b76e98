"""The files of a run's checkpoints: which there are, which one a run goes on from, and what it holds."""

import logging
import re
from pathlib import Path
from typing import Any, Literal

import torch

from monai_ext.base import SettingError, WeightsError, gather, rank, refuse_forced_unpickling, verify_digest

Resume = bool | str
_NAME = re.compile(r"checkpoint_iteration=(\d+)\.pt")


def checkpoint_path(folder: Path, iteration: int) -> Path:
    """Return where the checkpoint of an iteration lies."""
    return folder / f"checkpoint_iteration={iteration}.pt"


def saved_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Return checkpoints by iteration, oldest first; file times play no part."""
    found = ((_NAME.fullmatch(path.name), path) for path in folder.glob("checkpoint_iteration=*.pt"))
    return sorted((int(match.group(1)), path) for match, path in found if match)


def resume_way(resume: Any) -> Resume:
    """Return ``True``, ``False``, ``"auto"`` or a path: on the command line of MONAI's bundles all arrive as text."""
    words: dict[str, Resume] = {"true": True, "false": False, "auto": "auto"}
    return words.get(str(resume).lower(), resume)


def find_checkpoint(folder: Path, resume: Resume) -> tuple[Path, dict[str, Any]] | None:
    """Return the checkpoint to go on from and what it holds, or ``None`` for a new run; the first rank chooses.

    Args:
        folder: of the run's checkpoints.
        resume: see `RunCheckpoints`.

    Raises:
        SettingError: nothing to resume, or a run already there.
        WeightsError: the checkpoint cannot be read; with ``"auto"``, none of them; or the environment reopens pickles.
    """
    if resume:
        refuse_forced_unpickling()
    if resume == "auto":
        return _newest_whole(folder)
    saved = saved_checkpoints(folder)
    if isinstance(resume, str):
        return Path(resume), read_checkpoint(Path(resume))
    if resume and not saved:
        raise SettingError(
            f"resume: {folder.name!r} holds no checkpoint_iteration=N.pt; "
            "start without resume, or name the checkpoint's path",
            code="setting.resume",
        )
    if not resume and saved:
        raise SettingError(
            f"resume: {folder.name!r} already holds a run at iteration {saved[-1][0]}; "
            "pass --resume true to go on with it, or choose another output_dir",
            code="setting.resume",
        )
    return (saved[-1][1], read_checkpoint(saved[-1][1])) if saved else None


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of a run, once its checksum has been compared.

    Raises:
        WeightsError: missing, damaged, or no checkpoint of a run.
    """
    try:
        verify_digest(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise WeightsError(
            f"{path.name}: no such checkpoint; check the path given as resume", code="weights.missing"
        ) from error
    except WeightsError:
        raise
    except Exception as error:  # torch raises many types for a torn or foreign file
        raise WeightsError(
            f"{path.name}: cannot be read as a checkpoint; resume from an earlier one, as --resume auto does",
            code="weights.unreadable",
        ) from error
    if not isinstance(content, dict) or "progress" not in content:  # weights alone have no progress
        raise WeightsError(
            f"{path.name}: is not a run's checkpoint; choose a checkpoint_iteration=N.pt file", code="weights.run"
        )
    return content


def _newest_whole(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """Return the newest checkpoint that can be read; of those that cannot, say so."""
    chosen: tuple[Path, dict[str, Any]] | None = None
    kind: Literal["none", "damaged", "found"] = "none"
    if rank() == 0:
        for _, path in reversed(saved_checkpoints(folder)):
            try:
                chosen, kind = (path, read_checkpoint(path)), "found"
                break
            except WeightsError as error:
                kind = "damaged"
                logging.getLogger("monai_ext").error("passed over: %s", error)
    kind, name = gather((kind, chosen[0].name if chosen else ""))[0]
    if kind == "damaged":
        raise WeightsError(
            f"resume: no checkpoint in {folder.name!r} can be read; copy one there again, or start anew in another "
            "output_dir",
            code="weights.unreadable",
        )
    if kind == "none":
        return None
    return chosen or (folder / name, read_checkpoint(folder / name))
