"""Descriptions of an atlas: a few lines of text, tables for notebooks, and counts."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from lfm_tasks.errors import RESERVATIONS, number_of

if TYPE_CHECKING:
    import xarray as xr

_MAX_FAILURES = 10  # that a summary names


def as_text(summary: Mapping[str, Any], datasets: Sequence[str], measures: Sequence[str]) -> str:
    """Return a summary of an atlas in a few lines."""
    lines = [f"{name:<10} {value}" for name, value in _facts(summary, datasets, measures).items()]
    return "\n".join([f"<lfm-atlas: {summary['title']}>", *lines])


def as_html(summary: Mapping[str, Any], datasets: Sequence[str], measures: Sequence[str]) -> str:
    """Return a summary of an atlas as an HTML table for notebooks; every name is escaped."""
    facts = _facts(summary, datasets, measures)
    cells = [(escape(name), escape(value)) for name, value in facts.items()]
    rows = "".join(f'<tr><th scope="row">{name}</th><td>{value}</td></tr>' for name, value in cells)
    return f"<table><caption>{escape(summary['title'])}</caption><tbody>{rows}</tbody></table>"


def _facts(summary: Mapping[str, Any], datasets: Sequence[str], measures: Sequence[str]) -> dict[str, str]:
    counts = summary["counts"]
    facts = {
        "spaces": f"{counts['spaces']} of {number_of(counts['models'], 'model')}",
        "pairs": f"{counts['directed_pairs']} directed, {counts['directed_pairs_without_score']} without a score",
        "datasets": ", ".join(datasets),
        "measures": ", ".join(measures),
        "models": ", ".join(entry["name"] for entry in summary["models"]),
    }
    failures = [
        f"{failure.get('names') or '/'.join(filter(None, (failure['model'], failure['layer'])))} [{failure['reason']}]"
        for failure in summary["failures"]
    ]
    if failures:
        more = f" and {len(failures) - _MAX_FAILURES} more" if len(failures) > _MAX_FAILURES else ""
        facts["failed"] = ", ".join(failures[:_MAX_FAILURES]) + more
    return facts


# So many models at most have their matrix shown in a notebook.
MOST_IN_NOTEBOOK = 12


def matrix_as_html(values: "xr.DataArray") -> str:
    """Return models × models as an HTML table for notebooks: the higher a value, the deeper its color."""
    names = [escape(str(name)) for name in values["source"].values]
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    rows = "".join(
        f'<tr><th scope="row">{name}</th>{"".join(map(_cell, row))}</tr>'
        for name, row in zip(names, values.values, strict=True)
    )
    caption = f"{values.attrs['statistic']} {values.attrs['measure']}, {values.attrs['direction']}"
    return (
        f"<table><caption>{escape(caption)}</caption><thead><tr><th></th>{head}</tr></thead>"
        f"<tbody>{rows}</tbody></table>"
    )


def _cell(value: float) -> str:
    if not np.isfinite(value):
        return "<td></td>"
    share = round(100 * min(max(float(value), 0.0), 1.0))
    return f'<td style="background: color-mix(in srgb, teal {share}%, transparent)">{value:.2f}</td>'


def counted(
    scores: "xr.Dataset", models: Sequence[Mapping[str, Any]], failures: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the counts in the summary of an atlas for some of its spaces."""
    is_pair = ~np.eye(scores.sizes["source"], dtype=bool) & (scores["n_points"].values > 0)[:, :, None]
    is_pair &= (scores["n_points"].values > 0)[:, None, :]
    without = is_pair & ~np.isfinite(scores["score"].values).any(axis=scores["score"].get_axis_num("measure"))
    # What is requested and has no number.
    meanings = scores["status"].attrs["flag_meanings"].split()
    fine = RESERVATIONS | {"ok", "not_computed", "not_asked"}
    has_reason = np.array([name not in fine for name in meanings])
    measured = scores["status"].transpose("measure", ...).values
    is_missing = np.where(measured >= 0, has_reason[measured], False) & is_pair
    counts = {
        "models": len(models),
        "spaces": scores.sizes["source"],
        "directed_pairs": int(is_pair.sum()),
        "failures": len(failures),
        "directed_pairs_without_score": int(without.sum()),
        "values_without_score": int((is_missing & ~without).sum()),
    }
    return {"counts": counts, "models": list(models), "failures": list(failures)}
