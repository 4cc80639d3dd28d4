"""Tables go between their marks and nowhere else; a script ends as ``edgesod`` does."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from edgesod.errors import InputError


@pytest.fixture
def documents(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "scripts"))
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
