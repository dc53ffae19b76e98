"""Running a shipped bundle from Python exactly as ``python -m monai.bundle run`` would."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow

from monai_ext import bundle_path
from monai_ext.base import input_error_in


def run_bundle(bundle: str, configs: Sequence[str], overrides: Mapping[str, Any], training: bool) -> ConfigWorkflow:
    """Initialise, run and finalise a bundle's workflow; what the user can mend leaves MONAI's wrapping.

    Args:
        bundle: name of the bundle.
        configs: names of its configurations, merged in this order.
        overrides: values that replace those of the configurations.
        training: a training workflow, as opposed to inference and evaluation.

    Raises:
        InputError: what the bundle refuses.
    """
    try:
        return _run(bundle, configs, overrides, training)
    except Exception as error:
        cause = input_error_in(error)
        if cause is None:
            raise
        raise cause from None


def _run(bundle: str, configs: Sequence[str], overrides: Mapping[str, Any], training: bool) -> ConfigWorkflow:
    workflow = ConfigWorkflow(
        config_file=_files(bundle, configs),
        workflow_type="train" if training else "infer",
        **overrides,
    )
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    return workflow


def bundle_command(bundle: str, configs: Sequence[str], overrides: Mapping[str, Any]) -> str:
    """Return the shell command that does the same."""
    files = ", ".join(f"'{path}'" for path in _files(bundle, configs))
    lines = [f'python -m monai.bundle run --config_file "[{files}]"']
    lines += [f"  --{key} {shlex.quote(str(value))}" for key, value in overrides.items()]
    return " \\\n".join(lines)


def _files(bundle: str, configs: Sequence[str]) -> list[str]:
    return [str(Path(bundle_path(bundle)) / "configs" / f"{name}.json") for name in configs]
