"""A bundle's inference, parsed once and kept between requests; parsed anew when settings or weights change."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from monai.bundle import ConfigParser

from monai_ext import bundle_path
from monai_ext.base import ScanError, input_error_in
from monai_ext.label.result_origin import result_origin

# The loader counts its cases when it is made, one at a time.
_NOTHING_YET = [{"case": "none", "problem": "none: no image was given"}]


@dataclass(frozen=True)
class BundleResult:
    """What a bundle left for one image.

    Attributes:
        folder: its files; gone when the context ends.
        output: entries of the evaluator's last output, after postprocessing.
        origin: see ``result_origin``.
    """

    folder: Path
    output: Mapping[str, Any]
    origin: Mapping[str, Any]

    def file(self, ending: str) -> Path | None:
        """Return the one file with this ending, ``None`` where the bundle wrote none."""
        return next(self.folder.rglob(f"*{ending}"), None)


class BundleModel:
    """The inference configuration of a shipped bundle, run on one image at a time.

    Args:
        bundle: name of the bundle.
        configs: names of its configurations, merged in this order.
        settings: values that replace those of the configurations; they come from whoever serves, never from a client.
        watched: files of weights; when one changes, such as after a training, the next image sees the new ones.
        state: a folder for passing files.
    """

    def __init__(
        self,
        bundle: str,
        configs: Sequence[str],
        settings: Mapping[str, Any],
        watched: Sequence[Path],
        state: Path,
    ) -> None:
        self.bundle, self.configs, self.settings = bundle, list(configs), dict(settings)
        self.watched, self.state = list(watched), state
        self._lock = threading.Lock()
        self._parser: ConfigParser | None = None
        self._made_of: Any = None

    def content(self, name: str) -> Any:
        """Return a plain entry of the configuration, such as ``labels``, without building a network."""
        return self._parse({}).get_parsed_content(name)

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The bundle's ``metadata.json``."""
        return ConfigParser.load_config_file(str(Path(bundle_path(self.bundle)) / "configs" / "metadata.json"))

    @property
    def ready(self) -> bool:
        """Whether all files of weights are there."""
        return all(path.is_file() for path in self.watched)

    @contextmanager
    def run(self, image: Path, case: str, settings: Mapping[str, Any]) -> Iterator[BundleResult]:
        """Run the bundle on one image; one at a time, for a second one would need the memory twice.

        Args:
            image: a file, or the folder of a DICOM series.
            case: its id, part of the names of the files.
            settings: checked values that differ from request to request.

        Raises:
            InputError: the bundle refuses the image or a setting.
        """
        with self._lock, TemporaryDirectory(dir=self.state) as folder:
            parser = self._ready_parser(settings)
            parts = {
                name: parser.get_parsed_content(name) for name in ("dataset", "postprocessing", "evaluator", "step")
            }
            parts["dataset"].data = [{"case": case, "image": str(image)}]
            parts["dataset"].data[0] |= {"kind": "scan"} if self.bundle.startswith("aa_clip") else {}
            parts["postprocessing"].transforms[-1].output_dir = Path(folder)
            parts["step"].failures.clear()
            parts["step"].done.clear()
            origin = result_origin(parser, self.bundle, self.configs, image)
            try:
                parts["evaluator"].run()
                self._raise_failure(parts["step"])
                output = parts["evaluator"].state.output
                yield BundleResult(Path(folder), output[0] if isinstance(output, list) else output, origin)
            finally:
                parts["evaluator"].state.output = None

    def _ready_parser(self, settings: Mapping[str, Any]) -> ConfigParser:
        made_of = (sorted(settings.items()), [(path.stat().st_mtime_ns, path.stat().st_size) for path in self.watched])
        if self._parser is None or self._made_of != made_of:
            self._parser = None  # first, or two networks share the memory
            parser = self._parse(settings)
            try:
                parser.get_parsed_content("evaluator")
            except Exception as error:
                cause = input_error_in(error)
                if cause is None:
                    raise
                raise cause from None
            self._parser, self._made_of = parser, made_of
        return self._parser

    def _parse(self, settings: Mapping[str, Any]) -> ConfigParser:
        parser = ConfigParser()
        folder = Path(bundle_path(self.bundle)) / "configs"
        parser.read_config([str(folder / f"{name}.json") for name in self.configs])
        values = self.settings | dict(settings)
        if "device" in values:
            values["device"] = torch.device(values["device"])
        parser.update(values | {"dataset#data": _NOTHING_YET, "handlers": [], "output_dir": str(self.state)})
        return parser

    @staticmethod
    def _raise_failure(step: Any) -> None:
        if step.failures:
            case, sentence = next(iter(step.failures.items()))
            raise ScanError(sentence, code="label.image", case=case)
