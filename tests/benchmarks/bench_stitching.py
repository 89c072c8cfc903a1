"""Zero-shot stitching on the shipped zoo: other networks' heads on activations carried from 10 anchors.

Claim: carried by the chosen map from 10 known pairs, the last hidden layer of one trained network keeps the accuracy of
another one's head within .03 of what all 797 known pairs give, in all 42 directions, for most draws of the anchors.

``python tests/benchmarks/bench_stitching.py [--draws 5] [--anchors 10] [--log FILE]``. Accuracies are on the points
that are no anchors. Draws that FILE holds already are not computed again.
"""

import argparse
import json
from itertools import permutations
from pathlib import Path

import numpy as np

from lfm_tasks.catalog import read_catalog
from lfm_tasks.sources.networks.onnx_heads import open_head
from lfm_tasks.sources.opening import open_source, read_dataset
from lfm_tasks.spectral.bases.space import spectral_space
from lfm_tasks.spectral.maps.descriptors import Anchors
from lfm_tasks.spectral.transfer.alignment import transfer_coordinates
from lfm_tasks.spectral.transfer.selection import BASELINES, choose_alignment, choose_from_all_pairs

CATALOG = Path(__file__).parents[2] / "data_catalog.yaml"
LIMIT = 0.03


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--anchors", type=int, default=10)
    parser.add_argument("--log", type=Path, default=Path("stitching.jsonl"))
    options = parser.parse_args()
    done = [json.loads(line) for line in options.log.read_text().splitlines()] if options.log.exists() else []
    zoo = Zoo()
    for draw in range(options.draws):
        for source, target in permutations(zoo.spaces, 2):
            place = {"source": source, "target": target, "anchors": options.anchors, "draw": draw}
            if not any(place.items() <= row.items() for row in done):
                done.append(place | zoo.stitched(source, target, options.anchors, draw))
                with options.log.open("a") as file:
                    file.write(json.dumps(done[-1]) + "\n")
    print(summary([row for row in done if row["anchors"] == options.anchors and row["draw"] < options.draws]))  # noqa: T201


class Zoo:
    """The trained networks: last hidden layers, heads, and what the digits are."""

    def __init__(self) -> None:
        catalog = read_catalog(CATALOG)
        rows = read_dataset("digits", catalog)
        self.labels = rows.labels
        self.spaces, self.heads = {}, {}
        for name, model in catalog.models_on_datasets():
            if model.meta.get("untrained"):
                continue
            layer = "tanh4" if name == "tanh_s0" else "relu4"
            batches = open_source(name, model, catalog, rows).batches([layer], np.arange(len(rows.ids)))
            self.spaces[name] = spectral_space(np.concatenate([batch[layer] for batch in batches]).astype(float))
            self.heads[name] = open_head(name, model, catalog, layer)

    def stitched(self, source: str, target: str, n_anchors: int, draw: int) -> dict[str, object]:
        x, y = self.spaces[source], self.spaces[target]
        known = np.random.default_rng(draw).choice(len(x), n_anchors, replace=False)
        unknown = np.setdiff1d(np.arange(len(x)), known)

        def accuracy(rows: np.ndarray) -> float:
            named = self.heads[target].apply(rows.astype(np.float32)).argmax(axis=1)
            return float((named == self.labels[unknown]).mean())

        choice = choose_alignment(x, y, Anchors(known, known))
        everything = choose_from_all_pairs(x.activations, y.activations)
        return {
            "chosen": choice.name,
            "own": accuracy(y.activations[unknown]),
            "all pairs": accuracy(transfer_coordinates(everything.alignment, x.activations[unknown])),
            **{
                name: accuracy(transfer_coordinates(alignment, x.activations[unknown]))
                for name, alignment in choice.candidates.items()
            },
        }


def summary(rows: list[dict]) -> str:
    """Return the means over all rows, how often the limit is met, and the pairs that miss it."""
    behind = np.array([row["all pairs"] - row[row["chosen"]] for row in rows])
    lines = [
        f"{len(rows)} rows: own {mean(rows, 'own')}, all pairs {mean(rows, 'all pairs')}, "
        f"chosen {np.mean([row[row['chosen']] for row in rows]):.3f}",
        "baselines: " + ", ".join(f"{name} {mean(rows, name)}" for name in BASELINES),
        f"behind all pairs: mean {behind.mean():.4f}, median {np.median(behind):.4f}, largest {behind.max():.4f}",
        f"within {LIMIT}: {(behind <= LIMIT).sum()} of {len(rows)}",
    ]
    for name in BASELINES:
        apart = np.array([row["all pairs"] - row[name] for row in rows])
        lines.append(f"  {name}: {(apart <= LIMIT).sum()} of {len(rows)}, largest {apart.max():.3f}")
    for source, target in sorted({(row["source"], row["target"]) for row in rows}):
        of_direction = [row for row in rows if (row["source"], row["target"]) == (source, target)]
        apart = [row["all pairs"] - row[row["chosen"]] for row in of_direction]
        if max(apart) > LIMIT:
            lines.append(f"missed: {source} -> {target}: {', '.join(f'{value:.3f}' for value in apart)}")
    return "\n".join(lines)


def mean(rows: list[dict], name: str) -> str:
    return f"{np.mean([row[name] for row in rows]):.3f}"


if __name__ == "__main__":
    main()
