"""Plots (extra `metrics`): the similarity matrix of one dialogue as a heat map, scores with their intervals."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pess_hf.cli import prepare_output_dir
from pess_hf.errors import PessError
from pess_hf.similarity import PersonaMatch
from pess_hf.text_metrics import require_extra

_WRAP = 28
_CELL_INCHES = 1.15


def check_picture_path(path: str | Path) -> None:
    """Make sure, before any work is done, that a picture can be written under this name.

    Raises:
        PessError: If its extension is no picture's or its folder cannot be written.
    """
    known = require_extra("matplotlib.backend_bases").FigureCanvasBase.get_supported_filetypes()
    if Path(path).suffix.lower().removeprefix(".") not in known:
        raise PessError(f"{path}: expected an extension such as .png, found {Path(path).suffix or 'none'!r}.")
    prepare_output_dir(Path(path).absolute().parent)


def plot_similarity(
    path: str | Path, generated: Sequence[str], reference: Sequence[str], match: PersonaMatch, threshold: float
) -> None:
    """Draw generated against reference sentences; cells at or above the threshold are framed.

    Args:
        path: The picture to write; its extension decides the format.
        generated: The k generated sentences, columns.
        reference: The m reference sentences, rows.
        match: Their match.
        threshold: The matching threshold.

    Example:
        >>> plot_similarity("match.png", ["I own a dog."], ["I have a dog."], match, 0.6)  # doctest: +SKIP
    """
    matplotlib: Any = require_extra("matplotlib")
    matplotlib.use("Agg")
    plt: Any = require_extra("matplotlib.pyplot")
    rows, columns = max(len(reference), 1), max(len(generated), 1)
    size = (_CELL_INCHES * columns * 1.3 + 3.5, _CELL_INCHES * 0.7 * rows + 2.6)
    figure, axes = plt.subplots(figsize=size, layout="constrained")
    if match.similarity.size:
        image = axes.imshow(match.similarity, cmap="viridis", vmin=0, vmax=1, aspect="auto")
        figure.colorbar(image, label="cosine")
        _write_cells(axes, match, threshold, plt)
    # Sentences are no formulas: "$" stays a dollar sign.
    axes.set_xticks(
        range(len(generated)), [_label(text) for text in generated], rotation=35, ha="right", parse_math=False
    )
    axes.set_yticks(range(len(reference)), [_label(text) for text in reference], parse_math=False)
    axes.set_xlabel("generated")
    axes.set_ylabel("reference")
    axes.set_title(
        f"{len(match.consistent)} consistent, {len(match.inconsistent)} inconsistent, {len(match.missing)} missing "
        f"(threshold {threshold:g})",
        fontsize=10,
    )
    figure.savefig(path, dpi=150)
    plt.close(figure)


@dataclass(frozen=True)
class Bar:
    """One line of `plot_intervals`.

    Args:
        name: Its label.
        value: The score.
        interval: Low and high, drawn thick, or None.
        wide_interval: A second interval, drawn thin, or None.
        points: Single values, such as one for each seed.
    """

    name: str
    value: float
    interval: Sequence[float] | None = None
    wide_interval: Sequence[float] | None = None
    points: Sequence[float] = ()


def plot_intervals(path: str | Path, bars: Sequence[Bar], label: str, title: str = "") -> None:
    """Draw scores one below the other with their intervals.

    Args:
        path: The picture to write; its extension decides the format.
        bars: What to draw, the first on top.
        label: What the axis shows.
        title: Stands above.

    Example:
        >>> plot_intervals("f1.png", [Bar("full", 0.5, [0.4, 0.6], points=[0.45, 0.55])], "F1")  # doctest: +SKIP
    """
    matplotlib: Any = require_extra("matplotlib")
    matplotlib.use("Agg")
    plt: Any = require_extra("matplotlib.pyplot")
    figure, axes = plt.subplots(figsize=(7, 0.5 * len(bars) + 1.4), layout="constrained")
    for row, bar in enumerate(bars):
        for interval, width in ((bar.wide_interval, 1), (bar.interval, 4)):
            if interval is not None:
                axes.hlines(row, *interval, color="tab:blue", lw=width, alpha=0.6)
        axes.plot(bar.points, [row] * len(bar.points), "o", color="tab:orange", ms=4)
        axes.plot([bar.value], [row], "|", color="black", ms=12)
    axes.set_yticks(range(len(bars)), [_label(bar.name) for bar in bars], parse_math=False)
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.set_xlabel(label, parse_math=False)
    axes.set_title(title, fontsize=10, parse_math=False)
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _write_cells(axes: Any, match: PersonaMatch, threshold: float, plt: Any) -> None:
    for (row, column), value in _cells(match):
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", color="black" if value > 0.6 else "white")
        if value >= threshold:
            axes.add_patch(plt.Rectangle((column - 0.47, row - 0.47), 0.94, 0.94, fill=False, ec="red", lw=2))


def _cells(match: PersonaMatch) -> list[tuple[tuple[int, int], float]]:
    rows, columns = match.similarity.shape
    return [((i, j), float(match.similarity[i, j])) for i in range(rows) for j in range(columns)]


def _label(text: str) -> str:
    return textwrap.fill(textwrap.shorten(text, 2 * _WRAP, placeholder="..."), _WRAP)
