"""The structure holds: imports point down, heavy packages stay out of sight, every module imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the bottom up; rooms on one line may not import each other.
LAYERS = (
    ("errors", "buffers"),
    ("files", "types", "timing", "assets", "sensors", "threads"),
    ("recipe",),
    ("manifest", "zoo"),
    ("processing",),
    ("stream", "evaluation"),
    ("runtime",),
    ("calibration", "export"),
    ("builder",),
    ("bench", "web"),
    ("cli",),
)
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
LAZY = ("__init__", "__main__")


def _modules() -> list[Path]:
    return sorted((ROOT / "edgesod").rglob("*.py"))


def _room(path: Path) -> str:
    return path.relative_to(ROOT / "edgesod").parts[0].removesuffix(".py")


def _imports(path: Path) -> set[str]:
    """Return the top-level rooms of edgesod that a file names in any import, those under TYPE_CHECKING included."""
    package = ["edgesod", *path.relative_to(ROOT / "edgesod").parts[:-1]]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module or "") if part)
            names = [f"{module}.{alias.name}" for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("edgesod.")}
    return found & LEVEL.keys()


def test_every_room_has_a_level() -> None:
    assert {_room(path) for path in _modules()} - set(LAZY) == set(LEVEL)


@pytest.mark.parametrize("path", [p for p in _modules() if _room(p) not in LAZY], ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    room = _room(path)
    upwards = {other for other in _imports(path) if other != room and LEVEL[other] >= LEVEL[room]}
    assert not upwards, f"{path.name} in {room} imports {sorted(upwards)}, which lie above it or beside it"


def test_edgesod_names_trainer_only_in_commands() -> None:
    for path in _modules():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        at_import = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
        everywhere = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
        for node in everywhere:
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            if any(module.split(".")[0] == "trainer" for module in modules):
                assert _room(path) == "cli", f"{path} names trainer"
                assert node not in at_import, f"{path} imports trainer when it is imported"


def test_no_heavy_package_is_imported_by_edgesod_itself() -> None:
    code = "import sys, edgesod; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()
    )
    assert not loaded & {"torch", "onnx", "onnxruntime", "openvino", "av", "cv2", "numpy", "matplotlib", "skimage", "pydantic"}


def test_no_module_of_edgesod_imports_torch_or_trainer() -> None:
    names = [".".join(("edgesod", *p.relative_to(ROOT / "edgesod").with_suffix("").parts)) for p in _modules()]
    names = [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]
    code = (
        f"import sys, importlib\nfor name in {names!r}: importlib.import_module(name)\n"
        "print('torch' in sys.modules, 'trainer' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout.split() == ["False", "False"], done.stderr
