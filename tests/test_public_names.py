"""What ``import edgesod`` promises."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import edgesod


@pytest.mark.parametrize("name", edgesod.__all__)
def test_public_name_can_be_had(name: str) -> None:
    assert getattr(edgesod, name) is not None


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = edgesod.nonsense


def test_lazy_table_and_type_checkers_view_agree() -> None:
    tree = ast.parse(Path(edgesod.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == edgesod._HOMES
    assert sorted(edgesod.__all__) == sorted([*seen, "__version__"])
