"""Bad pictures and masks: damaged, hostile, or saying something else than they show."""

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

GREY = np.random.default_rng(5).integers(0, 256, (23, 31), dtype=np.uint8)
MASK = np.zeros((23, 31), np.uint8)
MASK[3:9, 5:19] = 255


def saved(values: np.ndarray, kind: str = "PNG", mode: str | None = None, **more: object) -> bytes:
    stream = io.BytesIO()
    image = Image.fromarray(values)
    (image if mode is None else image.convert(mode)).save(stream, kind, **more)
    return stream.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 0) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


def turned(kind: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(GREY, kind, exif=exif)


def flipped(content: bytes, place: int, bit: int = 0x10) -> bytes:
    return content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :]


LINES = b"".join(b"\0" + bytes(31) for _ in range(23))
PICTURES: dict[str, bytes] = {
    "nothing": b"",
    "text": b"no picture",
    "signature alone": b"\x89PNG\r\n\x1a\n",
    "half a PNG": saved(GREY)[:400],
    "PNG without its end": saved(GREY)[:-40],
    "half a JPEG": saved(GREY, "JPEG")[:300],
    "half a TIFF": saved(GREY, "TIFF")[:300],
    "half a WebP": saved(GREY, "WEBP")[:100],
    "checksum of the header": flipped(saved(GREY), 30),
    # Found by mutation: Pillow looks for the pixels a byte late, compares no checksum, and shows what it gets.
    "length and bits of the pixels": flipped(flipped(saved(GREY), 36, 1), len(saved(GREY)) // 2, 1),
    "bits of the pixels": flipped(saved(GREY), 200),
    "GIF": saved(GREY, "GIF"),
    "too few lines": png(31, 23, chunk(b"IDAT", zlib.compress(LINES[:300]))),
    "no pixels": png(31, 23),
    "width 0": png(0, 23, chunk(b"IDAT", zlib.compress(LINES))),
    "negative size": png(2**31, 23, chunk(b"IDAT", zlib.compress(LINES))),
    "bomb of pixels": png(60_000, 60_000, chunk(b"IDAT", zlib.compress(bytes(1 << 20)))),
    "bomb of text": png(
        31, 23, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 28))), chunk(b"IDAT", zlib.compress(LINES))
    ),
    "palette without colours": png(31, 23, chunk(b"IDAT", zlib.compress(LINES)), colour=3),
    "depth unknown": png(31, 23, chunk(b"IDAT", zlib.compress(LINES)), depth=3),
    "several frames": saved(GREY, "TIFF", save_all=True, append_images=[Image.fromarray(GREY)]),
    "32 bits": saved(GREY.astype(np.float32), "TIFF"),
    "turned JPEG": turned("JPEG", 6),
    "turned PNG": turned("PNG", 3),
    "turned TIFF": saved(GREY, "TIFF", tiffinfo={0x0112: 6}),
}
MASKS: dict[str, bytes] = {
    "nothing": b"",
    "half": saved(MASK)[: len(saved(MASK)) // 2],
    "JPEG named PNG": saved(MASK, "JPEG"),
    "many greys": saved(GREY),
    "another size": saved(MASK[:, :-1]),
    "turned about": saved(MASK.T.copy()),
    "drawn in transparency": saved(np.dstack([MASK * 0, MASK * 0, MASK * 0, MASK])),
    "drawn in transparent grey": saved(np.dstack([MASK * 0, MASK])),
    "printer's colours": saved(MASK, "TIFF", mode="CMYK"),
    "turned when shown": saved(MASK, exif=(lambda exif: exif.__setitem__(0x0112, 3) or exif)(Image.Exif())),
    "turned TIFF": saved(MASK, "TIFF", tiffinfo={0x0112: 3}),
    "NaN": saved(np.where(MASK, np.float32("nan"), np.float32(0)), "TIFF"),
    "stored with loss": saved(np.dstack([MASK] * 3), "WEBP", quality=5),
    "fractions": saved(np.linspace(0, 1, MASK.size, dtype=np.float32).reshape(MASK.shape), "TIFF"),
}


@pytest.mark.parametrize("bad", PICTURES)
def test_picture(tmp_path: Path, limited, judged, bad: str) -> None:
    path = tmp_path / "case_7.png"
    path.write_bytes(PICTURES[bad])
    judged("pictures and masks", f"picture: {bad}", limited("read_picture", path), str(tmp_path))


@pytest.mark.parametrize("bad", MASKS)
def test_mask(tmp_path: Path, limited, judged, bad: str) -> None:
    path = tmp_path / "case_7.png"
    path.write_bytes(MASKS[bad])
    judged("pictures and masks", f"mask: {bad}", limited("read_mask", path, shape=(23, 31)), str(tmp_path))


PLACES: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: None,
    "a folder": lambda path: path.mkdir(),
    "a pipe": os.mkfifo,
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to what never ends": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("bad", PLACES)
@pytest.mark.parametrize("reader", ["read_picture", "read_mask"])
def test_place(tmp_path: Path, limited, judged, bad: str, reader: str) -> None:
    PLACES[bad](tmp_path / "case_7.png")
    judged("pictures and masks", f"{bad}, {reader}", limited(reader, tmp_path / "case_7.png"), str(tmp_path))


@pytest.mark.parametrize("colour", [(0, 0, 1), (1, 0, 0), (0, 255, 0)])
def test_the_darkest_colour_of_a_mask_counts(tmp_path, limited, colour):
    (tmp_path / "m.png").write_bytes(saved(np.dstack([(MASK > 0) * np.uint8(part) for part in colour])))
    np.testing.assert_array_equal(limited("read_mask", tmp_path / "m.png").value, MASK > 0)
