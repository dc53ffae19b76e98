"""Pictures of every kind become 8-bit RGB, masks 0 and 1; what cannot be read is one sentence."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_ext.base import LabelError, ScanError
from monai_ext.transforms import ReadPictured, read_mask, read_picture

HEIGHT, WIDTH = 23, 31


@pytest.fixture
def grey() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)


def save(image: Image.Image, path: Path, **more: object) -> Path:
    image.save(path, **more)
    return path


@pytest.mark.parametrize("ending", ["png", "tiff", "bmp"])
def test_grey_is_spread_to_three_channels(tmp_path: Path, grey: np.ndarray, ending: str) -> None:
    found = read_picture(save(Image.fromarray(grey), tmp_path / f"a.{ending}"))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.repeat(grey[..., None], 3, axis=2))


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path: Path, grey: np.ndarray) -> None:
    deep = grey.astype(np.uint16) * 257
    for name in ("a.png", "a.tiff"):
        found = read_picture(save(Image.fromarray(deep), tmp_path / name))
        np.testing.assert_array_equal(found[..., 1], grey)


def test_palette_and_transparency(tmp_path: Path) -> None:
    indices = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint8) % 3
    palette = Image.fromarray(indices).convert("P")
    palette.putdata(indices.ravel().tolist())
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90] + [0] * 759)
    colours = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90]], np.uint8)[indices]
    np.testing.assert_array_equal(read_picture(save(palette, tmp_path / "p.png")), colours)
    rgba = np.dstack([colours, np.full_like(indices, 9)])
    np.testing.assert_array_equal(read_picture(save(Image.fromarray(rgba), tmp_path / "rgba.png")), colours)
    one_bit = Image.fromarray(indices > 0)
    np.testing.assert_array_equal(
        read_picture(save(one_bit, tmp_path / "one.png"))[..., 2], np.where(indices > 0, 255, 0)
    )


def test_thirty_two_bits_have_no_range(tmp_path: Path, grey: np.ndarray) -> None:
    for kind in (np.float32, np.int32):
        path = save(Image.fromarray(grey.astype(kind)), tmp_path / "a.tiff")
        with pytest.raises(ScanError, match="a: the picture has 32 bits a pixel"):
            read_picture(path)


@pytest.mark.parametrize("ending", ["png", "jpg", "tiff", "webp"])
def test_a_truncated_picture_is_one_sentence(tmp_path: Path, grey: np.ndarray, ending: str) -> None:
    whole = save(Image.fromarray(grey), tmp_path / f"whole.{ending}").read_bytes()
    for share in (0.0, 0.3, 0.7):
        torn = tmp_path / f"torn.{ending}"
        torn.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(ScanError, match=r"candle/003: the picture torn\.\w+ is truncated or damaged") as caught:
            read_picture(torn, "candle/003")
        assert "\n" not in str(caught.value)
        assert str(tmp_path) not in str(caught.value)


def test_a_missing_picture_and_one_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(ScanError, match=r"gone: there is no picture gone.png; check the list"):
        read_picture(tmp_path / "gone.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ScanError, match="truncated or damaged, or none of PNG, JPEG"):
        read_picture(tmp_path / "text.png")


@pytest.mark.parametrize("side", [10_000, 40_000])  # below and above where Pillow itself refuses
def test_a_picture_that_unpacks_to_gigabytes_is_refused_by_its_header(tmp_path: Path, side: int) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(bomb)
    with pytest.raises(ScanError, match="bomb: the picture has more than 80000000 pixels"):
        read_picture(tmp_path / "bomb.png")


def test_several_frames_are_no_picture(tmp_path: Path, grey: np.ndarray) -> None:
    image = Image.fromarray(grey)
    image.save(tmp_path / "many.tiff", save_all=True, append_images=[image, image])
    with pytest.raises(ScanError, match="many: the picture holds 3 frames"):
        read_picture(tmp_path / "many.tiff")


@pytest.mark.parametrize("high", [1, 255])
@pytest.mark.parametrize("mode", ["L", "P", "1", "RGB", "I;16"])
def test_masks_are_zero_and_one(tmp_path: Path, high: int, mode: str) -> None:
    truth = np.zeros((HEIGHT, WIDTH), np.uint8)
    truth[3:9, 5:19] = 1
    if mode == "I;16":
        image = Image.fromarray(truth.astype(np.uint16) * high)
    elif mode == "P":
        image = Image.fromarray(truth * high)
        image.putpalette([0] * 768)  # all colours black: only the numbers tell
    elif mode == "RGB":
        image = Image.fromarray(np.repeat((truth * 255)[..., None], 3, axis=2))
    else:
        image = Image.fromarray(truth * high if mode == "L" else truth > 0)
    found = read_mask(save(image, tmp_path / "m.png"), shape=(HEIGHT, WIDTH))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, truth)


def test_a_mask_of_another_size_names_both(tmp_path: Path, grey: np.ndarray) -> None:
    path = save(Image.fromarray((grey > 99).astype(np.uint8)), tmp_path / "m.png")
    with pytest.raises(LabelError, match=r"m: the mask has 31x23 pixels and the picture 23x31; give a mask"):
        read_mask(path, shape=(WIDTH, HEIGHT))


def test_masks_stored_with_loss_are_refused_whatever_their_name(tmp_path: Path, grey: np.ndarray) -> None:
    named_png = tmp_path / "m.png"
    Image.fromarray(np.where(grey > 127, 255, 0).astype(np.uint8)).save(named_png, format="JPEG")
    with pytest.raises(LabelError, match="m: the mask is a JPEG"):
        read_mask(named_png)
    # The same values, now in a PNG.
    save(Image.open(named_png), tmp_path / "again.png")
    with pytest.raises(LabelError, match=r"again: the mask has \d+ different values, so it is not binary"):
        read_mask(tmp_path / "again.png")


def test_an_entry_becomes_picture_and_mask(tmp_path: Path, grey: np.ndarray) -> None:
    image = save(Image.fromarray(grey), tmp_path / "a.png")
    truth = np.zeros_like(grey)
    truth[2:5, 7:11] = 1
    mask = save(Image.fromarray(truth * 255), tmp_path / "m.png")
    item = {"image": str(image), "mask": str(mask), "label": 1, "case": "candle/a", "class_name": "candle"}
    out = ReadPictured()(item)
    np.testing.assert_array_equal(out["mask"], truth)
    assert out["image"].shape == (HEIGHT, WIDTH, 3)
    assert out["class_name"] == "candle"
    assert item["image"] == str(image)
    normal = ReadPictured()({**item, "mask": "", "label": 0})
    assert not normal["mask"].any()
    assert normal["mask"].shape == (HEIGHT, WIDTH)
    with pytest.raises(LabelError, match="candle/a: labelled normal, but 12 pixels of its mask are abnormal"):
        ReadPictured()({**item, "label": 0})
