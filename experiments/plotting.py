"""Plots: lines, one for each row of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["curves"]


def curves(
    path: Path,
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]],
    *,
    x: str,
    y: str,
    log: bool = False,
    dashed: Sequence[str] = (),
    limits: tuple[float, float] | None = None,
) -> None:
    """Write a PNG with a panel for each title; in it, a line of (x, y) points for each name.

    log: a logarithmic horizontal axis. dashed: names with a dashed line. limits: of the vertical axis.
    """
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * len(panels), 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    pairs = [colormaps["tab20"](i) for i in range(20)]
    colours = pairs[::2] + pairs[1::2]  # the usual ten, then their lighter fellows
    names = list(dict.fromkeys(name for lines in panels.values() for name in lines))
    for i, (title, lines) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), i + 1)
        for name, points in lines.items():
            axes.plot(
                [p[0] for p in points], [p[1] for p in points], marker="o", markersize=3.5, label=name,
                color=colours[names.index(name) % 20], linestyle="--" if name in dashed else "-",
            )  # fmt: skip
        axes.set(title=title, xlabel=x, ylabel=y, xscale="symlog" if log else "linear")
        if limits is not None:
            axes.set_ylim(*limits)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
