"""Image files of every format are read as 8-bit RGB, or are an error of one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from rednet_jax.errors import RednetError
from rednet_jax.media.images import read_image

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)


def save(path: Path, values: NDArray[Any] | Image.Image, **options: Any) -> Path:
    image = values if isinstance(values, Image.Image) else Image.fromarray(values)
    image.save(path, **options)
    return path


def grey(path: Path) -> NDArray[np.uint8]:
    """The grey levels of a file whose three channels are the same."""
    image = read_image(path, upright=True)
    assert image.dtype == np.uint8 and image.shape[2] == 3
    np.testing.assert_array_equal(image, np.repeat(image[..., :1], 3, axis=2))
    return image[..., 0]


@pytest.mark.parametrize(
    "scaled",
    [
        RAMP.astype(np.uint16) * 257,
        RAMP.astype(">u2") * 257,
        RAMP.astype(np.uint16),
        RAMP.astype(np.int16) * 128 + 64,
        RAMP.astype(np.int32) * 257,
        RAMP.astype(np.int32) * (2**31 // 255),
        RAMP.astype(np.uint32) * 0x01010101,
        RAMP.astype(np.uint32),
        (RAMP / 255).astype(np.float32),
        RAMP.astype(np.float32),
        RAMP.astype(np.float32) * 257,
    ],
    ids=lambda values: f"{values.dtype}-{values.max():g}",
)
def test_deep_tiff_files_are_scaled(tmp_path: Path, scaled: NDArray[Any]) -> None:
    byte_order = ">" if scaled.dtype.byteorder == ">" else "<"
    tifffile.imwrite(tmp_path / "deep.tif", scaled, byteorder=byte_order)
    np.testing.assert_array_equal(grey(tmp_path / "deep.tif"), RAMP)


def test_deep_png_pgm_and_pfm_files_are_scaled(tmp_path: Path) -> None:
    sixteen = RAMP.astype(np.uint16) * 257
    save(tmp_path / "a.png", sixteen)
    (tmp_path / "a.pgm").write_bytes(b"P5 16 16 65535\n" + sixteen.astype(">u2").tobytes())
    # 12 bits, which the header declares.
    twelve = np.rint(RAMP * (4095 / 255)).astype(">u2")
    (tmp_path / "twelve.pgm").write_bytes(b"P5 16 16 4095\n" + twelve.tobytes())
    floats = np.flipud(RAMP / 255).astype("<f4")
    (tmp_path / "a.pfm").write_bytes(b"Pf\n16 16\n-1.0\n" + floats.tobytes())
    for name in ("a.png", "a.pgm", "twelve.pgm", "a.pfm"):
        np.testing.assert_array_equal(grey(tmp_path / name), RAMP, err_msg=name)


def test_white_may_be_zero(tmp_path: Path) -> None:
    deep = (255 - RAMP).astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "a.tif", deep, photometric="miniswhite")
    np.testing.assert_array_equal(grey(tmp_path / "a.tif"), RAMP)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_other_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(256, size=(6, 6, 3), dtype=np.uint8))
    image = small.resize((48, 48), Image.Resampling.BICUBIC).convert(mode)
    if mode in ("LA", "RGBA"):
        # Alpha must not change the stored colours.
        image.putalpha(Image.fromarray(np.tile(RAMP, (3, 3))))
    path = save(tmp_path / "a.tif", image)
    expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(read_image(path, upright=True), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("dtype", "ending"), [(np.uint8, "png"), (np.uint16, "png"), (np.uint8, "tif"), (">u2", "tif")]
)
def test_orientation_is_applied_only_with_upright(
    tmp_path: Path, orientation: int, dtype: str, ending: str
) -> None:
    stored = np.arange(12).reshape(3, 4) * (20 if dtype is np.uint8 else 20 * 257)
    stored = stored.astype(dtype)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / f"a.{ending}", stored, exif=exif)
    eight = np.arange(12).reshape(3, 4) * 20
    np.testing.assert_array_equal(read_image(path, upright=False)[..., 0], eight)
    # By the table of the EXIF standard.
    flipped = eight[:, ::-1] if orientation in (2, 4, 5, 7) else eight
    turns = {1: 0, 2: 0, 3: 2, 4: 2, 5: 1, 6: -1, 7: -1, 8: 1}[orientation]
    np.testing.assert_array_equal(grey(path), np.rot90(flipped, turns))


@pytest.mark.parametrize(
    ("values", "cause"),
    [
        ((RAMP.astype(np.uint16) * 257) >> 6, "up to 1023 would be black in 0..65535"),
        ((RAMP.astype(np.uint16) * 257) >> 4, "up to 4095 would be black in 0..65535"),
        (RAMP.astype(np.int32) - 1, "from -1 to 254 are not in 0..2147483647"),
        (RAMP.astype(np.int32) * 65793, "would be black in 0..2147483647"),
        ((RAMP / 250).astype(np.float32), "up to 1.02 would be black in 0..255"),
        ((RAMP / 250 - 0.01).astype(np.float32), "from -0.01 to 1.01 are not in 0..65535"),
        (RAMP.astype(np.float32) * 1e4, "from 0 to 2.55e+06 are not in 0..65535"),
        (np.where(RAMP == 7, np.nan, RAMP).astype(np.float32), "from nan to nan are not in"),
    ],
)
def test_an_unknown_range_is_an_error(tmp_path: Path, values: NDArray[Any], cause: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", values)
    with pytest.raises(RednetError) as caught:
        read_image(tmp_path / "a.tif", upright=True)
    line = str(caught.value)
    assert line.startswith(f"{tmp_path}/a.tif: cannot be read (") and cause in line
    assert "\n" not in line


@given(st.integers(0, 65535), st.sampled_from([np.uint16, np.int32, np.uint32, np.float32]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_image_is_clipped_or_becomes_black(tmp_path: Path, top: int, dtype: type) -> None:
    """A ramp from 0 to any value stays a ramp, scaled to its range, or is an error."""
    values = np.linspace(0, top, 16).astype(dtype).reshape(4, 4)
    tifffile.imwrite(tmp_path / "a.tif", values)
    try:
        levels = grey(tmp_path / "a.tif").ravel().astype(int)
    except RednetError as error:
        assert "would be black" in str(error)
        return
    assert (np.diff(levels) >= 0).all() and (levels[-1] >= 15 or top == 0)
    assert abs(levels[8] - levels[-1] * 8 / 15) <= 1


def test_a_black_image_is_read(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.zeros((4, 4), np.uint16))
    assert not read_image(path, upright=True).any()


def test_a_file_that_is_no_image_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").touch()
    noise = np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8)
    whole = save(tmp_path / "whole.png", noise).read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    for name, cause in (
        ("text.png", "not an image"),
        ("empty.png", "not an image"),
        ("half.png", "cannot be read ("),
        ("missing.png", "cannot be read (No such file"),
    ):
        with pytest.raises(RednetError) as caught:
            read_image(tmp_path / name, upright=True)
        assert str(caught.value).startswith(f"{tmp_path / name}: {cause}")
        assert "\n" not in str(caught.value)
