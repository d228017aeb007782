"""Every mode of picture is read as the pixels one sees."""

import io

import numpy as np
import pytest
from PIL import Image

from lit_gans.data.decode import UNREADABLE, Framing

RED, WHITE, HALF = [255, 0, 0], [255, 255, 255], [255, 127, 127]


def file(image: Image.Image, kind: str = "png", **options: object) -> io.BytesIO:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return io.BytesIO(out.getvalue())


def pixels(source: io.BytesIO, resolution: int = 2, **options: object) -> list:
    """[H][W][C] as lists."""
    return Framing(resolution, **options).decode(source).transpose(1, 2, 0).tolist()


def quarters() -> np.ndarray:
    """uint8 [2, 2, 3]: red, green / blue, white."""
    return np.array([[RED, [0, 255, 0]], [[0, 0, 255], WHITE]], np.uint8)


@pytest.mark.parametrize("kind", ["png", "bmp", "tiff", "webp"])
def test_lossless_files_keep_their_pixels(kind: str) -> None:
    options = {"lossless": True} if kind == "webp" else {}
    assert pixels(file(Image.fromarray(quarters()), kind, **options)) == quarters().tolist()


def test_jpeg_is_close() -> None:
    image = Image.new("RGB", (16, 16), (200, 100, 50))
    assert np.abs(np.array(pixels(file(image, "jpeg", quality=95), 16)) - [200, 100, 50]).max() <= 3


def test_a_picture_of_several_frames_is_its_first() -> None:
    for kind in ("mpo", "tiff", "png"):
        frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
        source = file(frames[0], kind, save_all=True, append_images=frames[1:])
        assert np.abs(np.array(pixels(source, 16)) - RED).max() <= 3


def test_grey_and_bilevel() -> None:
    grey = Image.fromarray(np.array([[0, 100], [200, 255]], np.uint8))
    assert pixels(file(grey)) == [[[0] * 3, [100] * 3], [[200] * 3, [255] * 3]]
    assert pixels(file(grey), channels=1) == [[[0], [100]], [[200], [255]]]
    assert pixels(file(grey.point(lambda v: 255 * (v > 99)).convert("1")), channels=1) == [[[0], [255]], [[255], [255]]]


def test_colour_becomes_luma_in_one_channel() -> None:
    assert pixels(file(Image.fromarray(quarters())), channels=1) == [[[76], [150]], [[29], [255]]]


def test_palette_with_and_without_transparency() -> None:
    image = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 0, 255])
    assert pixels(file(image)) == [[RED, [0, 0, 255]], [[0, 0, 255], RED]]
    assert pixels(file(image, transparency=1)) == [[RED, WHITE], [WHITE, RED]]


def test_alpha_is_laid_on_white() -> None:
    image = Image.fromarray(np.array([[[255, 0, 0, 255], [255, 0, 0, 0]], [[255, 0, 0, 128], [0, 0, 0, 0]]], np.uint8))
    assert pixels(file(image)) == [[RED, WHITE], [HALF, WHITE]]
    grey = Image.fromarray(np.array([[[9, 255], [9, 0]]] * 2, np.uint8), "LA")
    assert pixels(file(grey), channels=1) == [[[9], [255]]] * 2


def test_a_transparent_colour_of_rgb() -> None:
    image = Image.fromarray(quarters())
    assert pixels(file(image, transparency=(0, 0, 255)))[1][0] == WHITE


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_16_bit_grey_is_scaled_not_clipped(kind: str) -> None:
    image = Image.fromarray(np.array([[0, 257], [25700, 65535]], np.uint16))
    assert pixels(file(image, kind), channels=1) == [[[0], [1]], [[100], [255]]]


def test_cmyk() -> None:
    image = Image.new("CMYK", (2, 2), (0, 255, 255, 0))
    assert pixels(file(image, "tiff")) == [[RED] * 2] * 2
    assert np.abs(np.array(pixels(file(image, "jpeg", quality=100))) - RED).max() <= 4


@pytest.mark.parametrize(("orientation", "first_row"), [(1, "red green"), (2, "green red"), (3, "white blue"),
                                                        (6, "blue red"), (8, "green white")])  # fmt: skip
def test_exif_rotation_is_applied(orientation: int, first_row: str) -> None:
    names = {"red": RED, "green": [0, 255, 0], "blue": [0, 0, 255], "white": WHITE}
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(quarters().repeat(8, 0).repeat(8, 1))
    found = pixels(file(image, "jpeg", quality=100, subsampling=0, exif=exif), 16)
    for name, place in zip(first_row.split(), (3, 12), strict=True):
        assert np.abs(np.array(found[3][place]) - names[name]).max() < 12


def test_32_bit_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="32-bit values .mode F., whose white is unknown"):
        pixels(file(Image.new("F", (2, 2)), "tiff"))


def stripes() -> Image.Image:
    """8 wide and 4 high: two columns each of 10, 20, 30, 40."""
    return Image.fromarray(np.repeat([10, 20, 30, 40], 2)[None].repeat(4, 0).astype(np.uint8))


def row(**options: object) -> list[int]:
    return [value for (value,) in pixels(file(stripes()), 4, channels=1, **options)[2]]


def test_crop_takes_the_middle_square() -> None:
    assert row(resize="crop") == [20, 20, 30, 30]
    assert row(crop_px=4) == [20, 20, 30, 30]
    assert row(crop_px=4, resize="none") == [20, 20, 30, 30]
    assert [value for (value,) in pixels(file(stripes()), 2, channels=1, crop_px=2)[0]] == [20, 30]


def test_stretch_takes_all_of_it() -> None:
    stretched = row(resize="stretch")
    assert stretched == sorted(stretched) and stretched[0] < 13 and stretched[-1] > 37


def test_fit_adds_black_margins() -> None:
    fitted = np.array(pixels(file(Image.new("L", (8, 4), 255)), 8, channels=1, resize="fit"))[..., 0]
    assert (fitted[2:6] == 255).all() and not fitted[:2].any() and not fitted[6:].any()
    tall = np.array(pixels(file(Image.new("L", (4, 8), 255)), 8, channels=1, resize="fit"))[..., 0]
    assert (tall[:, 2:6] == 255).all() and not tall[:, :2].any()


def test_shrinking_averages() -> None:
    chequered = Image.fromarray((np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8))
    assert np.abs(np.array(pixels(file(chequered), 8, channels=1)) - 127.5).max() < 8


def test_none_wants_the_right_size() -> None:
    with pytest.raises(ValueError, match="is 8 x 4, not 4 x 4: resize='none' .*'crop', 'stretch' or 'fit'"):
        row(resize="none")
    with pytest.raises(ValueError, match="is 8 x 4, smaller than crop_px 5"):
        row(crop_px=5)


def test_a_bomb_is_refused_by_its_header() -> None:
    with pytest.raises(ValueError, match="declares 8 x 4 pixels, more than max_pixels 31"):
        row(max_pixels=31)
    huge = bytearray(file(Image.new("L", (2, 2))).getvalue())
    huge[16:24] = (60_000).to_bytes(4, "big") * 2
    for read in (Framing(4).check, Framing(4).decode):
        with pytest.raises(UNREADABLE, match="60000|3600000000|decompression bomb|CRC|broken|identify"):
            read(io.BytesIO(huge))


def test_other_formats_are_not_tried() -> None:
    with pytest.raises(OSError, match="cannot identify"):
        Framing(2).decode(file(Image.new("RGB", (2, 2)), "gif"))
    with pytest.raises(OSError, match="cannot identify"):
        Framing(2).decode(io.BytesIO(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 2 2\n"))


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "tiff"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_any_cut_or_altered_file_gives_one_of_the_named_errors_or_a_picture(kind: str) -> None:
    whole = file(Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)), kind).getvalue()
    rng = np.random.default_rng(1)
    for _ in range(60):
        bad = bytearray(whole[: rng.integers(1, len(whole) + 1)])
        bad[rng.integers(len(bad))] ^= 1 << rng.integers(8)
        try:
            assert Framing(8).decode(io.BytesIO(bad)).shape == (3, 8, 8)
        except UNREADABLE:
            pass
