"""Tables go between their marks and nowhere else; a script ends as ``edgesod`` does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from edgesod.errors import InputError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def documents(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import documents

    return documents


def test_a_table_takes_the_place_of_the_one_before(documents: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "new" / "page.md"
    documents.replace_between(path, "<!-- a -->", "<!-- b -->", ["first"])
    path.write_text(f"before\n\n{path.read_text()}\nafter\n")
    documents.replace_between(path, "<!-- a -->", "<!-- b -->", ["second", "third"])
    assert path.read_text() == "before\n\n<!-- a -->\n\nsecond\nthird\n\n<!-- b -->\n\nafter\n"


@pytest.mark.parametrize("text", ["a page", "<!-- a -->\nof value", "<!-- b -->\n<!-- a -->\nof value"])
def test_a_document_without_both_marks_is_left_alone(documents: ModuleType, tmp_path: Path, text: str) -> None:
    path = tmp_path / "page.md"
    path.write_text(text)
    with pytest.raises(InputError, match="no place"):
        documents.replace_between(path, "<!-- a -->", "<!-- b -->", ["first"])
    assert path.read_text() == text


def test_a_script_ends_as_edgesod_does(documents: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(error: BaseException) -> None:
        raise error

    ends = (
        (lambda: None, None),
        (lambda: 1, 1),
        (lambda: fail(InputError("no such set", hint="another")), 3),
        (lambda: fail(KeyboardInterrupt()), 130),
    )
    for main, code in ends:
        with pytest.raises(SystemExit) as caught:
            documents.run(main)
        assert caught.value.code == code
    assert capsys.readouterr().err == "error: no such set\n  try: another\n"


def test_a_package_of_elsewhere_is_warned_of(tmp_path: Path) -> None:
    copy, checkout = tmp_path / "site" / "edgesod", tmp_path / "a clone"
    copy.mkdir(parents=True)
    for name in ("__init__.py", "errors.py", "files.py"):
        shutil.copy(ROOT / "edgesod" / name, copy / name)
    for name in ("scripts", "edgesod"):
        (checkout / name).mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "documents.py", checkout / "scripts")
    (checkout / "edgesod" / "__init__.py").write_text("")
    (checkout / "scripts" / "script.py").write_text("from documents import run\nrun(lambda: print('done'))\n")

    def stderr(script: Path, path: Path) -> str:
        environment = os.environ | {"PYTHONPATH": str(path)}
        done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment, check=True)
        assert done.stdout == "done\n"
        return done.stderr

    said = stderr(checkout / "scripts" / "script.py", copy.parent)
    assert said.splitlines() == [
        f"warning: this script is of the checkout {checkout}, but runs the edgesod installed in {copy}, with the weights there",
        f"  try: pip install -e '{checkout}[train]'",
    ]
    shutil.copytree(copy, checkout / "edgesod", dirs_exist_ok=True)
    assert stderr(checkout / "scripts" / "script.py", checkout) == ""
    (tmp_path / "link").symlink_to(checkout)
    assert stderr(tmp_path / "link" / "scripts" / "script.py", checkout) == ""
