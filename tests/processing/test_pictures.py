"""Picture files are read in one way, and bad ones are named."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgesod.errors import InputError
from edgesod.processing.pictures import PHOTOGRAPHS, decode_grey, list_pictures, photograph, read_picture
from tests.helpers.pairs import write_pairs


def test_pictures_are_listed_and_read(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path, 3)
    files = list_pictures(folder / "images")
    assert [path.name for path in files] == ["000.jpg", "001.jpg", "002.jpg"]
    np.testing.assert_array_equal(read_picture(files[1]), cv2.imread(str(files[1])))
    for empty in (folder, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="holds no picture"):
            list_pictures(empty)
    with pytest.raises(InputError, match="cannot be read"):
        read_picture(tmp_path / "nothing.png")


def test_a_picture_too_large_to_hold_is_an_input_error(tmp_path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")
    (tmp_path / "huge.png").write_bytes(png)
    with pytest.raises(InputError, match=r"huge\.png"):
        read_picture(tmp_path / "huge.png")
    with pytest.raises(InputError, match="a mask"):
        decode_grey(png, "a mask")


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_photographs_are_always_there(name: str) -> None:
    assert photograph(name).dtype == np.uint8
    assert photograph(name).ndim == 3
