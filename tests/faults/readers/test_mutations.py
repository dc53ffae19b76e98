"""Good files with bytes changed, cut, doubled or set: refused in one sentence, or read as what their bytes say.

What they say is told by readers of a page, written here from the formats' own descriptions.
"""

import gzip
import json
import math
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import SimpleITK
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

MUTATIONS = {"quick": 10, "full": 400, "torch": 100}  # of each file; to fork what holds torch is slow
Edit = tuple[str, float, int]
# A place as a share of the file; the header is where most goes wrong, so half of the places lie there.
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "flip", "flip", "set", "set", "cut", "drop", "double", "insert", "zero"]),
        st.one_of(st.floats(0, 1, exclude_max=True), st.floats(0, 0.15)),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=3,
)


def mutated(content: bytes, edits: list[Edit]) -> bytes:
    for kind, share, value in edits:
        if not content:
            break
        at = int(share * len(content))
        piece = value % 64 + 1
        content = {
            "flip": content[:at] + bytes([content[at] ^ (1 << value % 8)]) + content[at + 1 :],
            "set": content[:at] + bytes([value]) + content[at + 1 :],
            "cut": content[:at],
            "drop": content[:at] + content[at + piece :],
            "double": content[: at + piece] + content[at:],
            "insert": content[:at] + bytes([value]) * (value % 5 + 1) + content[at:],
            "zero": content[:at] + bytes(min(piece, len(content) - at)) + content[at + piece :],
        }[kind]
    return content


def nifti_says(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Read a NIfTI-1 by nifti1.h: the sform where it is set, else the quaternion."""
    order = "<" if content[:4] == struct.pack("<i", 348) else ">"
    dim = struct.unpack_from(f"{order}8h", content, 40)
    (code,) = struct.unpack_from(f"{order}h", content, 70)
    pixdim = struct.unpack_from(f"{order}8f", content, 76)
    offset, slope, inter = struct.unpack_from(f"{order}3f", content, 108)
    qform, sform = struct.unpack_from(f"{order}2h", content, 252)
    kinds = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
    voxels = np.frombuffer(content[int(offset) :], order + kinds[code]).reshape(dim[1:4], order="F").astype(float)
    if slope and not math.isnan(slope):
        voxels = voxels * slope + inter
    affine = np.eye(4)
    if sform:
        affine[:3] = np.reshape(struct.unpack_from(f"{order}12f", content, 280), (3, 4))
        return voxels, affine
    assert qform
    b, c, d, *origin = struct.unpack_from(f"{order}6f", content, 256)
    a = math.sqrt(max(0.0, 1 - b * b - c * c - d * d))
    turn = [
        [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
        [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
        [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
    ]
    affine[:3, :3] = np.array(turn) * pixdim[1:4] * (1, 1, -1 if pixdim[0] < 0 else 1)
    affine[:3, 3] = origin
    return voxels, affine


def itk_says(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Read a NRRD or MetaImage of attached plain data."""
    nrrd = content.startswith(b"NRRD")
    head, _, data = content.partition(b"\n\n" if nrrd else b"ElementDataFile = LOCAL\n")
    told = dict(re.findall(r"^([^:=#]+?)\s*(?:: |=)\s*(.*?)\s*$", head.decode("utf-8", "replace"), re.MULTILINE))
    number = r"[-+.\deE]+"
    words = [
        told[key]
        for key in (("sizes", "space directions", "space origin") if nrrd else ("DimSize", "TransformMatrix", "Offset"))
    ]
    shape, steps, origin = (np.array(re.findall(number, text), float) for text in words)
    columns = steps.reshape(3, 3).T * (1 if nrrd else np.array(told["ElementSpacing"].split(), float))
    big = (
        told.get("endian", "little").lower() == "big"
        if nrrd
        else told.get("BinaryDataByteOrderMSB", told.get("ElementByteOrderMSB", "False")).lower() == "true"
    )
    names = {"short": "i2", "ushort": "u2", "int16": "i2", "MET_SHORT": "i2", "MET_USHORT": "u2"}
    dtype = (">" if big else "<") + names[told["type" if nrrd else "ElementType"]]
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = columns, origin
    signs = {"r": 1, "l": -1, "a": 1, "p": -1, "s": 1}
    space = [part[0] for part in told["space"].lower().split("-")] if nrrd and "-" in told["space"] else "lps"
    affine[:3] *= np.reshape([signs[letter] for letter in space], (3, 1))
    return np.frombuffer(data, dtype).reshape(shape.astype(int), order="F").astype(float), affine


def dicom_says(content: bytes) -> tuple[list[float], float, list[float], list[float], np.ndarray]:
    """Read the top level of a file in explicit VR, little endian, element by element (PS3.5 7.1.2)."""
    place, told = 132, {}
    while place + 8 <= len(content):
        group, element, kind = struct.unpack_from("<HH2s", content, place)
        long = kind in (b"OB", b"OW", b"OF", b"SQ", b"UT", b"UN", b"UC", b"UR", b"OD", b"OL", b"OV", b"SV", b"UV")
        (size,) = struct.unpack_from("<I" if long else "<H", content, place + (8 if long else 6))
        start = place + (12 if long else 8)
        told[group, element] = content[start : start + size]
        place = start + size

    def decimals(*tag: int) -> list[float]:
        return [float(text) for text in told[tag].decode("ascii", "replace").strip("\0 ").split("\\")]

    rows, columns = (struct.unpack("<H", told[0x28, tag][:2])[0] for tag in (0x10, 0x11))
    (stored,) = struct.unpack("<H", told[0x28, 0x101][:2])
    values = np.frombuffer(told[0x7FE0, 0x10], "<u2", rows * columns).reshape(rows, columns).astype(int)
    values &= (1 << stored) - 1
    if struct.unpack("<H", told[0x28, 0x103][:2])[0]:
        values = np.where(values >> (stored - 1), values - (1 << stored), values)
    (slope,), (inter,) = decimals(0x28, 0x1053), decimals(0x28, 0x1052)
    return decimals(0x20, 0x32), slope, decimals(0x20, 0x37), decimals(0x28, 0x30), values * slope + inter


@pytest.fixture
def examples(request: pytest.FixtureRequest) -> settings:
    """How many mutations of one file are tried; derived, so that each run tries the same."""
    slow = "torch" if request.node.originalname in ("test_png", "test_weights") else "full"
    count = MUTATIONS[slow if request.config.getoption("--full") else "quick"]
    return settings(
        max_examples=count, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )


def campaign(
    examples: settings,
    record: Callable[[str, object], None],
    family: str,
    content: bytes,
    read: Callable[[bytes], Any],
    agrees: Callable[[bytes, Any], bool],
) -> None:
    """Try mutations; record how many were refused and read, and the one that went wrong."""
    seen = {"caught": 0, "passed": 0}

    def judge(edits: list[Edit]) -> None:
        changed = mutated(content, edits)
        found = read(changed)
        outcome = {"refused": "caught", "value": "passed", "hung": "hung"}.get(found.kind, "crashed")
        if outcome == "passed":
            try:
                outcome = "passed" if agrees(changed, found.value) else "silent"
            except Exception:  # what no strict reader takes must not be taken
                outcome = "silent"
        seen[outcome] = seen.get(outcome, 0) + 1
        assert outcome in ("caught", "passed"), f"{outcome}: {edits} {vars(found)}"
        assert "SENTINEL" not in getattr(found, "message", "") + found.printed

    try:
        examples(given(EDITS)(judge))()
    finally:
        for outcome, count in seen.items():
            for number in range(count if outcome in ("caught", "passed") else 1):
                record("fault", [family, f"mutation {number}", outcome])
    assert seen["caught"] > 2


def same(found: tuple[np.ndarray, np.ndarray], told: tuple[np.ndarray, np.ndarray]) -> bool:
    close = np.allclose(found[1], told[1], rtol=1e-5, atol=1e-4)
    return bool(close and np.array_equal(found[0], told[0].astype(np.float32)))


def written(limited: Any, reader: str, path: Path) -> Callable[[bytes], Any]:
    def read(content: bytes) -> Any:
        path.write_bytes(content)
        return limited(reader, path)

    return read


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("forms", [{}, {"sform_code": 0}])
def test_nifti(tmp_path, nifti, limited, record_property, examples, order, forms):
    content = nifti(order=order, **forms)
    read = written(limited, "read_scan", tmp_path / "a.nii")
    campaign(examples, record_property, "mutated NIfTI", content, read, lambda bad, found: same(found, nifti_says(bad)))


def test_packed_nifti(tmp_path, nifti, limited, record_property, examples):
    """A gzip file has a checksum: nothing but its own header may change without a refusal."""
    content = gzip.compress(nifti(), mtime=0)
    read = written(limited, "read_scan", tmp_path / "a.nii.gz")
    campaign(
        examples,
        record_property,
        "mutated NIfTI",
        content,
        read,
        lambda bad, found: same(found, nifti_says(zlib.decompress(bad, 31))),
    )


@pytest.mark.parametrize("ending", ["nrrd", "mha"])
def test_itk(tmp_path, nifti, limited, record_property, examples, ending):
    image = SimpleITK.GetImageFromArray(nifti.voxels().astype("i2").transpose(2, 1, 0))
    image.SetSpacing((1.5, 2.0, 2.5))
    image.SetOrigin((-5, 6, 7))
    path = tmp_path / f"a.{ending}"
    SimpleITK.WriteImage(image, str(path))
    content, read = path.read_bytes(), written(limited, "read_scan", path)
    family = "mutated NRRD and MetaImage"
    campaign(examples, record_property, family, content, read, lambda bad, found: same(found, itk_says(bad)))


def test_dicom(tmp_path, ct_series, limited, record_property, examples):
    folder = ct_series.save(ct_series.slices(), tmp_path / "case_7")
    paths = sorted(folder.iterdir())
    content = paths[2].read_bytes()
    others = [path.read_bytes() for path in (*paths[:2], *paths[3:])]

    def agrees(bad: bytes, found: tuple[np.ndarray, np.ndarray]) -> bool:
        told = sorted((dicom_says(one) for one in (*others, bad)), key=lambda one: one[0][2])
        axes, spacing = told[0][2], told[0][3]
        affine = np.eye(4)
        affine[:3, 0], affine[:3, 1] = np.array(axes[:3]) * spacing[1], np.array(axes[3:]) * spacing[0]
        affine[:3, 2] = (np.array(told[-1][0]) - told[0][0]) / (len(told) - 1)
        affine[:3, 3] = told[0][0]
        voxels = np.stack([one[4].T for one in told], axis=2)
        # The usual values of several slices are taken, from which one may differ by what decimals round.
        close = np.allclose(found[1], np.diag([-1, -1, 1, 1]) @ affine, rtol=2e-3, atol=0.05)
        return bool(close and np.array_equal(found[0], voxels.astype(np.float32)))

    def read(bad: bytes) -> Any:
        paths[2].write_bytes(bad)
        return limited("read_scan", folder)

    campaign(examples, record_property, "mutated DICOM", content, read, agrees)


def test_png(tmp_path, limited, record_property, examples):
    grey = np.random.default_rng(5).integers(0, 256, (23, 31), dtype=np.uint8)
    path = tmp_path / "a.png"
    Image.fromarray(grey).save(path)
    content, read = path.read_bytes(), written(limited, "read_picture", path)
    # Every chunk has a checksum, and the pixels one more: what is read can only be what was written.
    family = "mutated PNG"
    campaign(examples, record_property, family, content, read, lambda bad, found: np.array_equal(found[..., 0], grey))


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
def test_weights(tmp_path, limited, record_property, examples, ending):
    state = {"a": torch.arange(60.0).reshape(4, 15), "b": torch.ones(7)}
    path = tmp_path / f"a.{ending}"
    torch.save(state, path) if ending == "pt" else safetensors.torch.save_file(state, path)
    content, read = path.read_bytes(), written(limited, "open_checkpoint", path)

    def agrees(bad: bytes, found: Any) -> bool:
        if ending == "pt":  # with checksums: nothing but what was saved
            return _arrays(found).keys() == state.keys() and all(
                np.array_equal(_arrays(found)[k], state[k]) for k in state
            )
        (size,) = struct.unpack("<Q", bad[:8])
        header = json.loads(bad[8 : 8 + size])
        header.pop("__metadata__", None)
        for name, told in header.items():
            begin, end = told["data_offsets"]
            kinds = {"F32": "<f4", "F16": "<f2", "F64": "<f8"}
            value = np.frombuffer(bad[8 + size + begin : 8 + size + end], kinds[told["dtype"]]).reshape(told["shape"])
            if not np.array_equal(_arrays(found)[name], value.astype(np.float32)):
                return False
        return header.keys() == _arrays(found).keys()

    campaign(examples, record_property, "mutated checkpoints", content, read, agrees)


def _arrays(found: Any) -> dict[str, np.ndarray]:
    return (
        found if isinstance(found, dict) else {name: tensor.float().numpy() for name, tensor in found.tensors.items()}
    )


def test_manifest(tmp_path, limited, record_property, examples):
    entries = [{"id": f"x{n}", "image": f"x/{n}.nii.gz", "dataset": "a", "label": f"y/{n}.nii"} for n in range(3)]
    unknown = {"value": "unknown", "confidence": "unknown", "source": []}
    content = {"schema_version": "1.0", "name": "one_set", "title": "One set", "status": "", "sources": {}}
    content |= {"datasets": {"a": {"title": unknown, "licence": unknown, "commercial_use": unknown}}}
    text = json.dumps(content | {"training": entries[:2], "test": entries[2:]}, indent=1).encode()

    def agrees(bad: bytes, found: Any) -> bool:
        told = json.loads(bad.decode("utf-8-sig"))
        splits = [(split, item) for split in ("training", "validation", "test") for item in told.get(split, [])]
        return found == [(split, item["id"], item["image"], item.get("label")) for split, item in splits]

    read = written(limited, "read_manifest", tmp_path / "list.json")
    campaign(examples, record_property, "mutated manifests", text, read, agrees)
