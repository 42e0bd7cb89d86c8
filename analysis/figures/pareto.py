"""Score against trainable parameters, one point a cell: what a parameter buys."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

# Okabe and Ito's palette, safe for color-blind readers; marker shapes carry it in gray.
STYLES = {
    "lokr": ("#0072B2", "o", "LoKr"),
    "lokr-peft": ("#56B4E9", "D", "LoKr (peft)"),
    "lora": ("#D55E00", "s", "LoRA (peft)"),
    "full": ("#009E73", "^", "full fine-tuning"),
    "head": ("#555555", "v", "head on the frozen base"),
}


def pareto(cells: pd.DataFrame, title: str, metric: str) -> Figure:
    """Points with one standard deviation over seeds as bars; parameters on a log axis.

    Args:
        cells: from :func:`analysis.selection.cells`.
        title: task and base.
        metric: name of the score.
    """
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    for method, group in cells.groupby("method", sort=False):
        color, marker, label = STYLES[str(method)]
        axes.errorbar(
            group["trainable"],
            group["score"],
            yerr=group["spread"].fillna(0.0),
            fmt=marker,
            color=color,
            label=label,
            markersize=6,
            capsize=2,
            linewidth=1,
        )
    axes.set_xscale("log")
    axes.set_xlabel("trainable parameters (adapter and head)")
    axes.set_ylabel(f"{metric}, report half of the dev set")
    axes.set_title(title)
    axes.grid(alpha=0.25, linewidth=0.5)
    axes.legend(frameon=False, fontsize="small")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure
