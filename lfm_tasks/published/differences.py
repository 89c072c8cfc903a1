"""What changed from one atlas to the next: spaces by content, settings, pairs whose score left its interval."""

from typing import Any

import numpy as np

from lfm_tasks.published.atlas import Atlas

_Row = dict[str, Any]


def differences(base: Atlas, candidate: Atlas, *, n: int = 10) -> dict[str, Any]:
    """Return the differences in plain values, ready for JSON; of pairs the ``n`` largest changes by measure.

    A pair left its interval where the candidate's score lies outside the base's 95 % interval. Rows name the dataset.
    """
    spaces = _spaces(base, candidate)
    pairs = _Pairs(base, candidate)
    return {
        "base": base.key,
        "candidate": candidate.key,
        "settings": _settings(base.summary["settings"], candidate.summary["settings"]),
        "measures": {
            "added": sorted(set(candidate.measures) - set(base.measures)),
            "removed": sorted(set(base.measures) - set(candidate.measures)),
        },
        "spaces": spaces,
        "pairs": pairs.counts(),
        "largest_changes": pairs.largest(n),
    }


def _settings(base: Any, candidate: Any, place: str = "") -> list[_Row]:
    """Return a row for each setting that differs, by its dotted name."""
    if isinstance(base, dict) and isinstance(candidate, dict):
        rows = []
        for name in sorted({*base, *candidate}):
            rows += _settings(base.get(name), candidate.get(name), f"{place}.{name}" if place else name)
        return rows
    return [] if base == candidate else [{"name": place, "base": base, "candidate": candidate}]


def _contents(atlas: Atlas) -> dict[tuple[str, str], str]:
    present = np.argwhere(atlas.scores["n_points"].values > 0)
    contents = atlas.scores["content"].values
    return {(atlas.datasets[d], atlas.spaces[s]): str(contents[d, s]) for d, s in present}


def _spaces(base: Atlas, candidate: Atlas) -> dict[str, list[_Row]]:
    before, after = _contents(base), _contents(candidate)

    def rows(names: set[tuple[str, str]]) -> list[_Row]:
        return [{"dataset": dataset, "space": space} for dataset, space in sorted(names)]

    both = before.keys() & after.keys()
    # Atlases of schema 2 do not tell contents.
    told = {name for name in both if before[name] and after[name]}
    return {
        "added": rows(after.keys() - before.keys()),
        "removed": rows(before.keys() - after.keys()),
        "changed": rows({name for name in told if before[name] != after[name]}),
        "unknown": rows(both - told),
    }


class _Pairs:
    """The scores of directed pairs of two different spaces that both atlases have, side by side."""

    def __init__(self, base: Atlas, candidate: Atlas) -> None:
        self.labels = {
            "dataset": [name for name in base.datasets if name in candidate.datasets],
            "measure": [name for name in base.measures if name in candidate.measures],
            "source": [name for name in base.spaces if name in candidate.spaces],
        }
        self.labels["target"] = self.labels["source"]
        chosen, other = base.scores.sel(self.labels), candidate.scores.sel(self.labels)
        self.before, self.after = chosen["score"].values, other["score"].values
        self.low, self.high = chosen["ci_low"].values, chosen["ci_high"].values
        apart = ~np.eye(len(self.labels["source"]), dtype=bool)
        has_before, has_after = np.isfinite(self.before) & apart, np.isfinite(self.after) & apart
        self.gained, self.lost = has_after & ~has_before, has_before & ~has_after
        self.compared = has_before & has_after
        self.with_interval = self.compared & np.isfinite(self.low)
        # Rounding is no change: bases made anew agree to some 1e-12.
        outside = (self.after < self.low - 1e-9) | (self.after > self.high + 1e-9)
        self.left = self.with_interval & outside

    def counts(self) -> dict[str, int]:
        moved = self.compared & (np.abs(self.after - self.before) > 1e-9)
        counted = {
            "compared": self.compared,
            "changed": moved,
            "with_interval": self.with_interval,
            "left_interval": self.left,
            "gained_a_score": self.gained,
            "lost_their_score": self.lost,
        }
        return {name: int(cells.sum()) for name, cells in counted.items()}

    def largest(self, n: int) -> list[_Row]:
        """Return up to ``n`` rows a measure: those that left their interval first, then by size."""
        change = np.where(self.compared, self.after - self.before, 0.0)
        rows = []
        for m in range(len(self.labels["measure"])):
            cells = np.argwhere(np.abs(change[:, m]) > 1e-9)
            places = [(int(d), m, int(s), int(t)) for d, s, t in cells]
            places.sort(key=lambda place: (not self.left[place], -round(abs(float(change[place])), 9), place))
            rows += [self._row(place) for place in places[:n]]
        return rows

    def _row(self, place: tuple[int, int, int, int]) -> _Row:
        names = {name: labels[place[axis]] for axis, (name, labels) in enumerate(self.labels.items())}
        low, high = (float(values[place]) for values in (self.low, self.high))
        return names | {
            "base": float(self.before[place]),
            "candidate": float(self.after[place]),
            "change": float(self.after[place] - self.before[place]),
            "ci_low": low if np.isfinite(low) else None,
            "ci_high": high if np.isfinite(high) else None,
            "left_interval": bool(self.left[place]),
        }
