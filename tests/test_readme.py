"""The README's Python and shell blocks run, in order, in one folder; what needs hardware is checked to exist."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from edgesod import zoo
from edgesod.stream.tour import write_tour

ROOT = Path(__file__).parents[1]
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
_NEEDS = "camera|gpu|board|a clone|a network|a training set|an hour"
_GROUPS = ("data",)
_BLOCK = re.compile(rf"^(?:<!-- needs: (?P<needs>{_NEEDS}) -->\n)?```(?P<language>sh|python)\n(?P<code>.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    document: Path
    language: str
    code: str
    needs: str | None


def _blocks() -> list[Block]:
    return [
        Block(path, m["language"], m["code"], m["needs"])
        for path in DOCUMENTS
        for m in _BLOCK.finditer(path.read_text(encoding="utf-8"))
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a reader would have it: a clip, a picture, and pictures to calibrate on."""
    import cv2
    from skimage import data

    path = tmp_path_factory.mktemp("readme")
    write_tour(path / "clip.mp4", seconds=1)
    (path / "photos").mkdir()
    for name in ("cat", "coffee", "astronaut", "rocket"):
        image = np.ascontiguousarray(getattr(data, name)()[:, :, ::-1])
        cv2.imwrite(str(path / "photos" / f"{name}.png"), image)
    cv2.imwrite(str(path / "photo.jpg"), image)
    torch.save(load_file(zoo.shipped("u2netp").weights), path / "u2netp.pth")
    return path


def _environment() -> dict[str, str]:
    return os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


@pytest.mark.slow
def test_blocks_run(folder: Path) -> None:
    blocks = [b for b in _blocks() if b.needs is None]
    assert len(blocks) >= 4
    for block in blocks:
        if block.language == "python":
            command = [sys.executable, "-W", "error", "-c", block.code]
        else:
            command = ["bash", "-euo", "pipefail", "-c", block.code]
        done = subprocess.run(command, cwd=folder, env=_environment(), capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, f"{block.document.name}: {block.code}\n{done.stdout[-800:]}\n{done.stderr[-2000:]}"
        assert "leaked" not in done.stderr, "a binding reports leaks at the end"


@pytest.mark.parametrize("block", [b for b in _blocks() if b.needs], ids=lambda b: b.code.splitlines()[0][:40])
def test_blocks_that_need_something_name_real_commands_and_flags(block: Block) -> None:
    if block.language == "python":
        compile(block.code, block.document.name, "exec")
        return
    for line in block.code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if "edgesod" in words:  # also behind torchrun
            words = words[words.index("edgesod") :]
            command = words[: 3 if words[1] in _GROUPS else 2]
            help_text = subprocess.run(
                [*command, "--help"], env=_environment(), capture_output=True, text=True, check=True
            ).stdout
            for flag in (word.split("=")[0] for word in words if word.startswith("--")):
                assert re.search(rf"(?<![\w-]){flag}(?![\w-])", help_text), f"{line}: `{' '.join(command)}` has no {flag}"
        elif words[:1] == ["make"]:
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M), line


def test_files_that_documents_link_to_exist() -> None:
    for document in DOCUMENTS:
        for link in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
            assert "://" in link or (document.parent / link).exists(), f"{document.name} links to {link}"
