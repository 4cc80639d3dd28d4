"""Write the hold-out of a training set with posts and trunks in front of every picture, to score weights on.

    python scripts/barred_hold_out.py --data DUTS-TR --out barred
    edgesod eval --data barred --weights FILE

Each mask is 0 where a bar is. The bars are training's own (``trainer.data.bars``), drawn at the pictures' own size and the same on every
run; the pictures were never trained on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from documents import run, say

from edgesod.evaluation.pairs import EvaluationSet, hold_out
from edgesod.stream.sinks.pictures import write_picture
from trainer.data.bars import draw_bars


def main() -> None:
    """Write the set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", required=True, help="folder or tar; several times for parts of one set")
    parser.add_argument("--out", type=Path, required=True, help="a folder; images/ and masks/ in it are made")
    options = parser.parse_args()
    source = EvaluationSet(*options.data)
    _, held = hold_out(source.stems)
    for number, stem in enumerate(held):
        image_BGR, mask = source.read(stem)
        image_RGB, mask = draw_bars(cv2.cvtColor(image_BGR, cv2.COLOR_BGR2RGB), mask, np.random.default_rng(number))
        write_picture(options.out / "images" / f"{stem}.png", cv2.cvtColor(image_RGB, cv2.COLOR_RGB2BGR))
        write_picture(options.out / "masks" / f"{stem}.png", mask)
    say(f"wrote {len(held)} pairs to {options.out}")


if __name__ == "__main__":
    run(main)
