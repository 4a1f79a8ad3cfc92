"""Logistic regression over all organizations, by iteratively reweighted least squares.

Each round is one Newton step on the log-likelihood of all rows, whose derivatives are sums over the rows and so
over the organizations. The result is that of the pooled data, to rounding.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from skerry import AlgorithmClient, central, data, info, partial
from skerry.errors import AlgorithmError, DataError, PrivacyViolation

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

MINIMUM_ROWS = 10
MAXIMUM_ROUNDS = 25
TOLERANCE = 1e-10
"""The largest step, relative to the coefficients, that counts as none."""


@central
def fit(
    client: AlgorithmClient, outcome: str, features: list[str], organizations: list[int] | None = None
) -> dict[str, Any]:
    """Coefficients and standard errors by feature, with the intercept as ``(intercept)``."""
    everyone = organizations or [int(organization["id"]) for organization in client.organization.list()]
    columns = {"outcome": outcome, "features": features}

    def ask(method: str, **kwargs: Any) -> list[dict[str, Any]]:
        task = client.task.create(
            input_={"method": method, "kwargs": {**columns, **kwargs}}, organizations=everyone, name=method
        )
        return client.wait_for_results(task["id"])

    n, centre, scale = _pool_moments(ask("moments"))
    beta = np.zeros(len(features) + 1)
    for round_ in range(1, MAXIMUM_ROUNDS + 1):
        parts = ask("derivatives", coefficients=beta.tolist(), centre=centre.tolist(), scale=scale.tolist())
        gradient, hessian, likelihood = (_sum(parts, name) for name in ("gradient", "hessian", "log_likelihood"))
        step = _solve(hessian, gradient)
        beta = beta + step
        info(f"round {round_}: log-likelihood {likelihood:.6f}")
        if np.max(np.abs(step)) <= TOLERANCE * max(1.0, np.max(np.abs(beta))):
            return {**_report(features, beta, hessian, centre, scale), "n": n, "rounds": round_}
    raise AlgorithmError(f"No solution in {MAXIMUM_ROUNDS} rounds: the features may separate the outcomes perfectly.")


@partial
@data(1)
def moments(frame: pd.DataFrame, outcome: str, features: list[str]) -> dict[str, Any]:
    """The number of rows, and the features' sums and sums of squares: enough to standardise them."""
    design, _ = _design(frame, outcome, features)
    return {"n": len(design), "sums": design.sum(axis=0).tolist(), "squares": (design**2).sum(axis=0).tolist()}


@partial
@data(1)
def derivatives(
    frame: pd.DataFrame,
    outcome: str,
    features: list[str],
    *,
    coefficients: list[float],
    centre: list[float],
    scale: list[float],
) -> dict[str, Any]:
    """The log-likelihood, its gradient X'(y - p) and the negative of its Hessian, X'WX with W = p(1 - p)."""
    raw, y = _design(frame, outcome, features)
    x = np.column_stack([np.ones(len(raw)), (raw - centre) / scale])
    eta = x @ np.asarray(coefficients)
    p = 1 / (1 + np.exp(-eta))
    hessian = (x * (p * (1 - p))[:, None]).T @ x
    likelihood = float(y @ eta - np.logaddexp(0, eta).sum())
    return {"gradient": (x.T @ (y - p)).tolist(), "hessian": hessian.tolist(), "log_likelihood": likelihood}


def _design(frame: pd.DataFrame, outcome: str, features: list[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The features and the outcome of the complete rows."""
    missing = [column for column in [outcome, *features] if column not in frame]
    if missing:
        raise DataError(f"There is no column {', '.join(missing)}; there are: {', '.join(map(str, frame.columns))}.")
    complete = frame[[outcome, *features]].dropna()
    if len(complete) < MINIMUM_ROWS:
        raise PrivacyViolation(f"There are fewer than {MINIMUM_ROWS} complete rows here.")
    y = complete[outcome].to_numpy(dtype=float)
    if not np.isin(y, (0, 1)).all():
        raise DataError(f'The outcome "{outcome}" must be 0 or 1 in each row.')
    return complete[features].to_numpy(dtype=float), y


def _sum(parts: list[dict[str, Any]], name: str) -> Any:
    return np.sum([part[name] for part in parts], axis=0)


def _pool_moments(parts: list[dict[str, Any]]) -> tuple[int, NDArray[np.float64], NDArray[np.float64]]:
    """The number of rows and each feature's mean and standard deviation, over all organizations."""
    n = sum(part["n"] for part in parts)
    centre = _sum(parts, "sums") / n
    deviation = np.sqrt(np.maximum(_sum(parts, "squares") / n - centre**2, 0))
    return n, centre, np.where(deviation > 0, deviation, 1.0)


def _solve(hessian: NDArray[np.float64], gradient: NDArray[np.float64]) -> NDArray[np.float64]:
    try:
        return np.linalg.solve(hessian, gradient)
    except np.linalg.LinAlgError as error:
        raise AlgorithmError("The features depend on each other linearly: leave one out.") from error


def _report(
    features: list[str],
    beta: NDArray[np.float64],
    hessian: NDArray[np.float64],
    centre: NDArray[np.float64],
    scale: NDArray[np.float64],
) -> dict[str, Any]:
    """Back from standardised features to the features as they are."""
    back = np.diag(np.concatenate([[1.0], 1 / scale]))
    back[0, 1:] = -centre / scale
    variance = np.diag(back @ np.linalg.inv(hessian) @ back.T)
    names = ["(intercept)", *features]
    return {
        "coefficients": dict(zip(names, (back @ beta).tolist(), strict=True)),
        "standard_errors": dict(zip(names, map(math.sqrt, variance), strict=True)),
    }
