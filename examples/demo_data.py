"""The data of the demonstration, its split over nodes, and what the pooled data give.

Breast Cancer Wisconsin (Diagnostic): W. Wolberg, O. Mangasarian, N. Street, W. Street, 1993, UCI Machine Learning
Repository, https://doi.org/10.24432/C5DW2B, CC BY 4.0; as scikit-learn ships it. 569 tumours, measured on images of
fine-needle aspirates; malignant or benign.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer

SOURCE = "Breast Cancer Wisconsin (Diagnostic), UCI, https://doi.org/10.24432/C5DW2B"
LICENCE = "CC BY 4.0"

COLUMN = "mean radius"
OUTCOME = "malignant"
FEATURES = ("mean radius", "mean texture", "mean smoothness", "mean symmetry")
"""Chosen so that they don't separate the two outcomes perfectly: otherwise no finite fit exists."""

_SEED = 20
_ROUNDS = 50


def split(folder: Path, nodes: int) -> list[Path]:
    """Writes each node's share of the rows, in uneven shares, as a CSV file into the folder; the files' paths."""
    names, rows = _table()
    order = np.random.default_rng(_SEED).permutation(len(rows))
    shares = np.cumsum(np.arange(2, nodes + 2)) / np.sum(np.arange(2, nodes + 2))
    parts = np.split(order, (shares[:-1] * len(rows)).astype(int))
    return [_write(folder / f"node-{i}.csv", names, rows[part]) for i, part in enumerate(parts, 1)]


def pooled_mean(column: str = COLUMN) -> dict[str, Any]:
    """What ``mean`` must give: the same on all rows."""
    values = _columns([column])[:, 0]
    return {"mean": float(values.mean()), "n": len(values)}


def pooled_logistic(outcome: str = OUTCOME, features: Sequence[str] = FEATURES) -> dict[str, float]:
    """The coefficients that ``fit`` must give: plain IRLS on all rows, without standardising."""
    x = np.column_stack([np.ones(len(_table()[1])), _columns(features)])
    y = _columns([outcome])[:, 0]
    beta = np.zeros(x.shape[1])
    for _ in range(_ROUNDS):
        p = 1 / (1 + np.exp(-x @ beta))
        beta = beta + np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x, x.T @ (y - p))
    return dict(zip(["(intercept)", *features], beta.tolist(), strict=True))


def _table() -> tuple[list[str], NDArray[np.float64]]:
    """Column names and rows; the outcome, 1 for malignant, comes last."""
    bunch = load_breast_cancer()
    return [*map(str, bunch.feature_names), OUTCOME], np.column_stack([bunch.data, 1 - bunch.target])


def _columns(names: Sequence[str]) -> NDArray[np.float64]:
    all_names, rows = _table()
    return rows[:, [all_names.index(name) for name in names]]


def _write(path: Path, names: list[str], rows: NDArray[np.float64]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows(rows.tolist())
    return path
