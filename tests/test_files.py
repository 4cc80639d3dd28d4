"""Nothing half-written is left looking whole."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from edgesod.errors import InputError, OutputError
from edgesod.files import Replacement, read_json, read_toml, replacing, replacing_folder, write_atomically


def test_write_makes_parents_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.txt"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(path.parent) == ["b.txt"]


def test_failed_block_keeps_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "b.txt"
    path.write_text("before")
    with contextlib.suppress(ValueError), replacing(path) as temporary:
        temporary.write_text("half")
        raise ValueError
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["b.txt"]


def test_a_replacement_is_what_it_became_first(tmp_path: Path) -> None:
    path = tmp_path / "new" / "b.txt"
    for is_kept in (False, True):
        replacement = Replacement(path)
        replacement.path.write_text("whole")
        for settle in (replacement.keep, replacement.discard)[:: 1 if is_kept else -1]:
            settle()
            assert os.listdir(path.parent) == (["b.txt"] if is_kept else [])
    path.unlink()
    path.mkdir()
    with pytest.raises(OutputError, match="cannot write"):
        Replacement(path).keep()
    assert os.listdir(path.parent) == ["b.txt"]


def test_what_is_no_file_is_not_replaced_by_one(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OutputError, match=r"pipe: it is a device or a pipe, not a file"):
        write_atomically(pipe, b"lost")
    assert pipe.is_fifo()
    assert os.listdir(tmp_path) == ["pipe"]


def test_failed_folder_keeps_what_was_there(tmp_path: Path) -> None:
    folder = tmp_path / "engine"
    with replacing_folder(folder) as work:
        (work / "x").write_text("1")
    with contextlib.suppress(ValueError), replacing_folder(folder) as work:
        (work / "x").write_text("2")
        raise ValueError
    assert (folder / "x").read_text() == "1"
    assert os.listdir(tmp_path) == ["engine"]


def test_folder_is_replaced_whole(tmp_path: Path) -> None:
    folder = tmp_path / "engine"
    for name in ("old", "new"):
        with replacing_folder(folder) as work:
            (work / name).write_text(name)
    assert os.listdir(folder) == ["new"]
    assert os.listdir(tmp_path) == ["engine"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is absent: it stands for a full disk")
def test_full_disk_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No space left"), replacing(tmp_path / "x"), open("/dev/full", "wb") as full:
        full.write(b"1" * 100_000)
    assert os.listdir(tmp_path) == []


def test_unwritable_place_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        write_atomically(tmp_path / "file" / "below" / "x", b"")


@pytest.mark.parametrize("content", [b"\xff\xfe", b"{", b"[1]", b""])
def test_broken_json_is_an_input_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.json"):
        read_json(path)


def test_broken_toml_is_an_input_error(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text("= 1")
    with pytest.raises(InputError, match=r"x\.toml"):
        read_toml(path)
