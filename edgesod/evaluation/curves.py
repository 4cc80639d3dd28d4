"""Precision–recall and F-measure curves as a picture and as a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgesod.evaluation.metrics import THRESHOLDS, Curves
from edgesod.files import replacing, write_atomically


def draw_curves(curves: Mapping[str, Curves], path: str | Path) -> None:
    """Write precision over recall and F over threshold, one line per model, as one picture.

    The F drawn is that of the set's mean precision and recall, whose peak is ``max_f``.

    Args:
        curves: By the model's name, as the legend shows it.
        path: ``.png``, or another suffix that matplotlib writes.

    Raises:
        OutputError: It cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), layout="constrained")
    FigureCanvasAgg(figure)
    precision_recall, f_measure = figure.subplots(1, 2)
    for name, curve in curves.items():
        precision_recall.plot(curve.recall, curve.precision, label=name)
        f_measure.plot(THRESHOLDS, curve.f, label=f"{name}, max {curve.f.max():.3f}")
    precision_recall.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1), title="precision–recall")
    f_measure.set(xlabel="threshold", ylabel="F, β² = 0.3", xlim=(0, 255), ylim=(0, 1), title="F-measure")
    for axes in (precision_recall, f_measure):
        axes.grid(alpha=0.3)
        axes.legend(loc="lower left")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=120)


def write_curves(curves: Mapping[str, Curves], path: str | Path) -> None:
    """Write curves as CSV with the columns model, threshold, precision, recall, f and f_mean (see :class:`Curves`).

    Args:
        curves: By the model's name.
        path: Of the CSV file.

    Raises:
        OutputError: It cannot be written.
    """
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["model", "threshold", "precision", "recall", "f", "f_mean"])
    for name, curve in curves.items():
        columns = np.stack([curve.precision, curve.recall, curve.f, curve.f_mean], axis=1)
        for threshold, row in zip(THRESHOLDS, columns, strict=True):
            writer.writerow([name, threshold, *(f"{value:.6f}" for value in row)])
    write_atomically(path, table.getvalue().encode())
