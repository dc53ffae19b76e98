"""What a process of ``manifest build`` does with one scan: find its series, take its checksum."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from monai_ext.base import InputError, case_id, plain_name
from monai_ext.curation.checksum_notes import state_of
from monai_ext.curation.problems import Problem, problem_of
from monai_ext.volumes import source_checksum
from monai_ext.volumes.checksums import source_files
from monai_ext.volumes.dicom_folder import slices_in
from monai_ext.volumes.dicom_places import places_on_disk
from monai_ext.volumes.dicom_quiet import quiet_pydicom
from monai_ext.volumes.dicom_sort import patient_of
from monai_ext.volumes.refusals import refusing_closed_files

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class FileJob:
    """A file, or a DICOM series as a path that ``read_scan`` takes, to take the checksum of.

    Attributes:
        root: the folder that the path starts from.
        path: relative, with ``/``.
    """

    root: Path
    path: str


@dataclass(frozen=True)
class FileResult:
    """The checksum of a scan, and the state in which it was read; or why it could not be."""

    path: str
    checksum: str | None
    state: str | None
    problem: Problem | None = None


@dataclass(frozen=True)
class SeriesFound:
    """One DICOM series.

    Attributes:
        path: relative, as ``read_scan`` takes it: with a ``#`` and a mark where its folder holds several.
        case: base name of the folder, with the mark.
        modality: as its first file says, empty where it says none.
        patient: what its first file says of the patient; told to nobody, only compared.
    """

    path: str
    case: str
    modality: str
    patient: str


@dataclass(frozen=True)
class FolderResult:
    """The series of one folder, or why it cannot be sorted."""

    path: str
    series: tuple[SeriesFound, ...]
    problem: Problem | None = None


def checksum_of(job: FileJob) -> FileResult:
    """Take the checksum of one scan; whatever is wrong with it is a problem, not an error."""
    case = plain_name(case_id(job.path))

    def work() -> FileResult:
        path = job.root / job.path
        with refusing_closed_files(case):
            files = source_files(path, case)
            before = state_of(job.path, files)
            checksum = source_checksum(path, case)
            # A file that is still being written must not be taken for what it was.
            return FileResult(job.path, checksum, before if before == state_of(job.path, files) else None)

    return _told(work, case, lambda problem: FileResult(job.path, None, None, problem))


def series_of(job: FileJob) -> FolderResult:
    """Find the series of one folder, whose path ends in ``/``."""
    relative = job.path.rstrip("/")
    folder = job.root / relative
    case = plain_name(folder.name)

    def work() -> FolderResult:
        with refusing_closed_files(case), quiet_pydicom():
            places = places_on_disk({folder: slices_in(folder)})
            for error in places.refused.values():
                raise error
            found = []
            for place in places.found:
                path = place.path.relative_to(job.root).as_posix()
                patient = patient_of(place.series.files[0], case)
                found.append(SeriesFound(path, place.case, place.series.modality, patient))
        return FolderResult(job.path, tuple(found))

    return _told(work, case, lambda problem: FolderResult(job.path, (), problem))


def died(job: FileJob) -> FileResult:
    """Return what stands for a job whose process died twice."""
    case = plain_name(case_id(job.path.rstrip("/")))
    sentence = f"{case}: its worker process died, most likely for lack of memory; use fewer jobs, or leave it out"
    return FileResult(job.path, None, None, Problem("build.worker_died", case, sentence))


def folder_died(job: FileJob) -> FolderResult:
    """Return the same for a folder."""
    return FolderResult(job.path, (), died(job).problem)


def _told(work: Callable[[], ResultT], case: str, failed: Callable[[Problem], ResultT]) -> ResultT:
    try:
        return work()
    except InputError as error:
        return failed(problem_of(error, case))
    except Exception as error:
        # The message of an unforeseen error may show a path or a DICOM tag; its type does not.
        return failed(unforeseen(error, case))


def unforeseen(error: Exception, case: str) -> Problem:
    """Describe an error that nobody thought of, by its type alone."""
    if isinstance(error, MemoryError):
        return Problem("scan.memory", case, f"{case}: too large for the memory; use fewer jobs, or leave it out")
    sentence = f"{case}: {type(error).__name__} while looking at it; leave it out and please report this"
    return Problem("scan.unforeseen", case, sentence)
