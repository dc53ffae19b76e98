"""What a process of ``manifest verify`` does with one entry: are its files there, unchanged, readable and together."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from monai_ext.base import InputError, inside
from monai_ext.curation.problems import Problem, problem_of
from monai_ext.curation.scan_files import unforeseen
from monai_ext.manifests import ManifestEntry
from monai_ext.volumes import PICTURE_ENDINGS, Scan, ScanHeader, read_header, read_labels, read_scan, source_checksum
from monai_ext.volumes.dicom_places import picked
from monai_ext.volumes.read_picture import check_mask, check_picture
from monai_ext.volumes.refusals import refuse, refusing_closed_files

ValueT = TypeVar("ValueT")


@dataclass(frozen=True)
class EntryJob:
    """One entry to check.

    Attributes:
        entry: of the manifest.
        root: the folder that its paths start from.
        label_ids: ids that its label may hold; any when ``None``.
        checksums: read the files and take their SHA-256.
        deep: read the voxels or pixels of the image too.
        assume_hu: accept other modalities than CT, and values that do not look like HU.
    """

    entry: ManifestEntry
    root: Path
    label_ids: tuple[int, ...] | None
    checksums: bool
    deep: bool
    assume_hu: bool


@dataclass
class EntryResult:
    """What was found: ``sha256`` of the image as it lies there, where that was asked for, and the problems."""

    id: str
    sha256: str | None = None
    problems: list[Problem] = field(default_factory=list)


def verify_entry(job: EntryJob) -> EntryResult:
    """Check one entry; whatever is wrong with it is a problem, not an error."""
    result = EntryResult(job.entry.id)
    check = _Checks(job, result)
    image = check.file(job.entry.image, "image", job.entry.sha256)
    label = check.file(job.entry.label, "label", job.entry.label_sha256) if job.entry.label else None
    if job.entry.image.lower().endswith(PICTURE_ENDINGS):
        size = check.tell(lambda: check_picture(image, job.entry.id, whole=job.deep)) if image else None
        if label:
            check.tell(lambda: check_mask(label, job.entry.id, size, whole=job.deep))
    else:
        grid = check.tell(lambda: check.scan(image)) if image else None
        if label:
            check.tell(lambda: read_labels(label, like=grid, classes=job.label_ids, case=job.entry.id))
    return result


def died(job: EntryJob) -> EntryResult:
    """Return what stands for an entry whose process died twice."""
    case = job.entry.id
    sentence = f"{case}: its worker process died, most likely for lack of memory; verify with fewer jobs"
    return EntryResult(case, None, [Problem("verify.worker_died", case, sentence)])


class _Checks:
    def __init__(self, job: EntryJob, result: EntryResult) -> None:
        self._job, self._result, self._case = job, result, job.entry.id

    def tell(self, work: Callable[[], ValueT]) -> ValueT | None:
        """Do something with the files, and note why it cannot be done."""
        try:
            return work()
        except InputError as error:
            self._result.problems.append(problem_of(error, self._case))
        except Exception as error:
            # The message of an unforeseen error may show a path or a DICOM tag; its type does not.
            self._result.problems.append(unforeseen(error, self._case))
        return None

    def file(self, relative: str, what: str, expected: str | None) -> Path | None:
        """Return where the image or label lies, if it is there and can be read."""
        return self.tell(lambda: self._file(relative, what, expected))

    def scan(self, path: Path) -> Scan | ScanHeader:
        """Read a scan, or its header; return what its label is compared with."""
        if not self._job.deep:
            return read_header(path, case=self._case, assume_hu=self._job.assume_hu)
        scan = read_scan(path, case=self._case, assume_hu=self._job.assume_hu)
        # The voxels are let go: the label has as many again.
        return ScanHeader(scan.shape, scan.affine, scan.case, scan.kind)

    def _file(self, relative: str, what: str, expected: str | None) -> Path:
        case = self._case
        path = inside(self._job.root, relative)
        home, _ = picked(path)
        if not home.exists():
            way_out = "download it again, or give the folder that the paths start from with --root"
            refuse(case, f"its {what} is not there", way_out, f"{what}.missing")
        with refusing_closed_files(case):
            if home.is_file() and not home.stat().st_size:
                refuse(case, f"its {what} is an empty file", "download it again", f"{what}.empty")
            found = source_checksum(path, case) if self._job.checksums else None
        if what == "image":
            self._result.sha256 = found
        if found and expected and found != expected:
            way_out = "download it again; or, if it was changed on purpose, build the manifest again"
            sentence = f"{case}: its {what} is not the file that was listed (SHA-256 {found[:8]}..., "
            sentence += f"not {expected[:8]}...); {way_out}"
            self._result.problems.append(Problem(f"{what}.checksum", case, sentence))
        return path
