"""Plots of scores (extra `metrics`): cosines by label, and lines of a table with a column on each axis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pess_hf.data.sentence_pairs import LABELS
from pess_hf.text_metrics import require_extra

_COLOURS = dict(zip(LABELS, ("tab:green", "tab:gray", "tab:red"), strict=True))


def plot_pair_cosines(path: str | Path, scores: Mapping[str, np.ndarray], labels: Sequence[str]) -> None:
    """Histograms of similarity by label, one panel per scorer.

    Args:
        path: The picture to write.
        scores: For each scorer the similarities of the N pairs.
        labels: The N labels.

    Example:
        >>> plot_pair_cosines("c.png", {"before": np.array([0.9, 0.1])}, ["entailment", "neutral"])  # doctest: +SKIP
    """
    plt = _pyplot()
    figure, panels = plt.subplots(
        1, len(scores), figsize=(4.6 * len(scores), 3.4), sharey=True, squeeze=False, layout="constrained"
    )
    names = np.asarray(labels)
    bins = np.linspace(-0.4, 1, 57).tolist()
    for axes, (title, values) in zip(panels[0], scores.items(), strict=True):
        for label in LABELS:
            chosen = np.clip(np.asarray(values)[names == label], bins[0], bins[-1])
            axes.hist(chosen, bins=bins, histtype="step", lw=1.6, color=_COLOURS[label], label=label)
        axes.set_title(title)
        axes.set_xlabel("similarity")
    panels[0][0].set_ylabel("pairs")
    panels[0][0].legend(loc="upper left", fontsize=8)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def plot_lines(
    path: str | Path, lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], x_label: str, y_label: str
) -> None:
    """One line per name.

    Args:
        path: The picture to write.
        lines: For each name the values on the x axis and on the y axis.
        x_label: What the x axis shows.
        y_label: What the y axis shows.

    Example:
        >>> plot_lines("sweep.png", {"f1": ([0.5, 0.6], [0.8, 0.7])}, "threshold", "share")  # doctest: +SKIP
    """
    plt = _pyplot()
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for name, (x, y) in lines.items():
        axes.plot(x, y, marker=".", label=name)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _pyplot() -> Any:
    require_extra("matplotlib").use("Agg")
    return require_extra("matplotlib.pyplot")
