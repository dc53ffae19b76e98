"""What the models of the app share: checked requests, one image in, one file and a few words out."""

import tempfile
import time
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.utils.others.generic import device_list, name_to_device

from monai_ext.base import SettingError, WeightsError, case_id, is_number
from monai_ext.label.bundle_model import BundleModel, BundleResult
from monai_ext.label.options import DTYPES, EXTENSIONS, Option, coerced, shown_options

RESEARCH_ONLY = "For research use only. Not for diagnosis or treatment."
KEPT = "_kept"  # entry of a result that the app takes out: files for the server, not for the client


@dataclass(frozen=True)
class Answer:
    """What a model has for one image.

    Attributes:
        file: for the client, new, the caller's to remove.
        told: entries of the JSON beside it.
        kept: more new files, by what they are: their tag in the datastore.
    """

    file: Path
    told: dict[str, Any]
    kept: dict[str, str] = field(default_factory=dict)


def common_options() -> dict[str, Option]:
    """Return what every model of the app takes."""
    devices = [str(name) for name in device_list()]
    return {
        "device": Option(devices[0], devices),
        "result_extension": Option(".nii.gz", EXTENSIONS, shown=False),
        "result_dtype": Option("", ("", *DTYPES), shown=False),
        "result_compress": Option(True, shown=False),
    }


def number_of(model: BundleModel, name: str) -> float:
    """Return a number of a bundle's configuration.

    Raises:
        SettingError: whoever serves has set something else.
    """
    value = model.content(name)
    if not is_number(value):
        raise SettingError(f"{name}: {value!r} is no number; set another one (--set)", code="setting.number")
    return float(value)


class VolumeTask(InferTask):
    """A model of the app, on one of the bundles.

    Args:
        model: the bundle and its weights.
        kind: how clients file it, such as ``"segmentation"``.
        labels: id of each label by name.
        description: a sentence for the client's panel.
        options: beside the common ones.
    """

    def __init__(
        self, model: BundleModel, kind: str, labels: Mapping[str, int], description: str, options: Mapping[str, Option]
    ) -> None:
        super().__init__(kind, dict(labels), 3, f"{description} {RESEARCH_ONLY}")
        self.model = model
        self.options = common_options() | dict(options)

    def config(self) -> dict[str, Any]:
        """Return the options as clients show them."""
        return shown_options(self.options)

    def info(self) -> dict[str, Any]:
        """Return what clients are told of the model."""
        return super().info() | {"version": self.model.metadata["version"]}

    def is_valid(self) -> bool:
        """Tell whether there are weights; without them the model is not offered."""
        return self.model.ready

    def get_path(self, validate: bool = True) -> str | None:
        """Return the file of weights."""
        path = self.model.watched[-1]
        return str(path) if path.is_file() or not validate else None

    def checked(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options of a request, each of its type and in its range."""
        return coerced(request, self.options, str(request.get("model") or self.type))

    def __call__(self, request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Run the model on ``request["image"]``, a path that the server chose.

        Returns:
            The path of a file that is the caller's to remove, and what the client is told.

        Raises:
            InputError: the image or an option cannot be used.
        """
        started = time.monotonic()
        options = self.checked(request)
        image = Path(request["image"])
        case = str(request.get("case") or case_id(image))
        with self.run(image, case, options) as result:
            answer, origin = self.answer(result, case, options), result.origin
        seconds = round(time.monotonic() - started, 2)
        about = {
            "label_names": self.labels,
            "latencies": {"total": seconds},
            "research_use_only": RESEARCH_ONLY,
            "bundle": f"{self.model.bundle} {self.model.metadata['version']}",
            "provenance": {**origin, "seconds": seconds},
        }
        return str(answer.file), {"centroids": {}} | about | answer.told | {KEPT: answer.kept}

    def run(self, image: Path, case: str, options: Mapping[str, Any]) -> Any:
        """Run the bundle with the options of a request; a context that gives a `BundleResult`."""
        self.require_weights()
        return self.model.run(image, case, {"device": name_to_device(options["device"])} | self.settings(options))

    def require_weights(self) -> None:
        """Raise `WeightsError` where the model has no weights."""
        missing = next((path for path in self.model.watched if not path.is_file()), None)
        if missing is not None:
            raise WeightsError(
                f"{missing.name}: this model has no weights yet; train it, or make the app anew with weights",
                code="label.weights",
            )

    def settings(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the entries of the bundle's configuration that the options change."""
        return {}

    @abstractmethod
    def answer(self, result: BundleResult, case: str, options: Mapping[str, Any]) -> Answer:
        """Turn what the bundle wrote into a file for the client and what to tell beside."""


@contextmanager
def removed_on_error(path: Path) -> Iterator[None]:
    """Leave no file behind that nobody will be told of."""
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def new_file(ending: str) -> Path:
    """Return the path of a new, empty file that only this user can read."""
    handle = tempfile.NamedTemporaryFile(prefix="monai_ext-", suffix=ending, delete=False)  # noqa: SIM115 - kept
    handle.close()
    return Path(handle.name)
