"""Run clips through a model and lay eight frames of each out as one picture, to judge by eye what it finds.

    python scripts/clip_sheet.py CLIP… --out docs/clips.jpg                        # the shipped model, INT8
    python scripts/clip_sheet.py CLIP… --engine engines/u2netp-320-int8 --out clips.png

Frames are those of ``edgesod run --contact-sheet``: spread evenly, first and last included, in reading order.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from documents import run, say

from edgesod import Runtime
from edgesod.processing.effects import apply_effect
from edgesod.processing.pictures import read_picture
from edgesod.processing.sheet import contact_sheet
from edgesod.stream import SheetSink
from edgesod.stream.sinks.pictures import write_picture

_FRAMES, _COLUMNS = 8, 4


def main() -> None:
    """Write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="a .jpg or .png")
    parser.add_argument("--engine", default="u2netp", help="engine folder, or the name of a shipped model")
    parser.add_argument("--precision", default="int8", choices=("fp32", "int8"), help="of a shipped model")
    parser.add_argument("--effect", default="overlay")
    options = parser.parse_args()
    how = {} if Path(options.engine).is_dir() else {"precision": options.precision}
    sheets = []
    with Runtime(options.engine, **how) as runtime, tempfile.TemporaryDirectory(prefix="edgesod-sheet-") as folder:
        for clip in options.clips:
            say(str(clip))
            path = Path(folder) / "sheet.png"
            with SheetSink(path, wanted=_FRAMES, columns=_COLUMNS) as sink:
                for result in runtime.stream(str(clip)):
                    sink.write(apply_effect(options.effect, result.frame.image, result), result.frame, result)
            sheets.append(read_picture(path))
    width, height = (max(sheet.shape[side] for sheet in sheets) for side in (1, 0))
    labels = [f"{clip.stem}: frames 1 to {_COLUMNS} above, to {_FRAMES} below" for clip in options.clips]
    write_picture(options.out, contact_sheet([[sheet] for sheet in sheets], (), (width, height), labels))
    say(f"wrote {options.out}")


if __name__ == "__main__":
    run(main)
