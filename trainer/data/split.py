"""Which pictures are trained on and which are held out."""

from __future__ import annotations

from collections.abc import Sequence


def hold_out(stems: Sequence[str], every: int = 20) -> tuple[list[str], list[str]]:
    """Split stems into those to train on and the hold-out, every 20th in sorted order."""
    ordered = sorted(stems)
    held = set(ordered[::every])
    return [stem for stem in ordered if stem not in held], ordered[::every]
