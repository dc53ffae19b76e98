"""What every room may use: typed errors, safe writing, derived randomness, ranks, HU windows."""

from monai_ext.base.digests import (
    copy_weights,
    digest_path,
    remove_weights,
    replacing_weights,
    verify_digest,
    write_digest,
)
from monai_ext.base.errors import (
    GeometryError,
    InputError,
    LabelError,
    ManifestError,
    RunError,
    ScanError,
    SettingError,
    StoreError,
    WeightsError,
    WriteError,
    input_error_in,
)
from monai_ext.base.files import case_id, inside, plain_name, printable, sha256_of, told_apart
from monai_ext.base.forced_unpickling import refuse_forced_unpickling
from monai_ext.base.leftovers import hold, remove_leftovers
from monai_ext.base.pictures import check_picture_whole
from monai_ext.base.randomness import derive_seed
from monai_ext.base.ranks import bare, gather, join_ranks, lost_a_rank, rank, tell_torchrun, world
from monai_ext.base.run_folders import hold_folder, leave_folders
from monai_ext.base.settings import as_numbers, is_number
from monai_ext.base.shards import is_parted, own_part, own_part_is_finite, parted, whole
from monai_ext.base.stopping import (
    REQUEUE,
    end_children_at_exit,
    leave_stopping_to_the_run,
    stop_asked,
    stop_on_signals,
)
from monai_ext.base.streams import print_any_name
from monai_ext.base.window_presets import WINDOWS, find_window
from monai_ext.base.windows import check_window, window_hu
from monai_ext.base.writing import check_output, replacing, save_tensors, save_torch

__all__ = [
    "REQUEUE",
    "WINDOWS",
    "GeometryError",
    "InputError",
    "LabelError",
    "ManifestError",
    "RunError",
    "ScanError",
    "SettingError",
    "StoreError",
    "WeightsError",
    "WriteError",
    "as_numbers",
    "bare",
    "case_id",
    "check_output",
    "check_picture_whole",
    "check_window",
    "copy_weights",
    "derive_seed",
    "digest_path",
    "end_children_at_exit",
    "find_window",
    "gather",
    "hold",
    "hold_folder",
    "input_error_in",
    "inside",
    "is_number",
    "is_parted",
    "join_ranks",
    "leave_folders",
    "leave_stopping_to_the_run",
    "lost_a_rank",
    "own_part",
    "own_part_is_finite",
    "parted",
    "plain_name",
    "print_any_name",
    "printable",
    "rank",
    "refuse_forced_unpickling",
    "remove_leftovers",
    "remove_weights",
    "replacing",
    "replacing_weights",
    "save_tensors",
    "save_torch",
    "sha256_of",
    "stop_asked",
    "stop_on_signals",
    "tell_torchrun",
    "told_apart",
    "verify_digest",
    "whole",
    "window_hu",
    "world",
    "write_digest",
]
