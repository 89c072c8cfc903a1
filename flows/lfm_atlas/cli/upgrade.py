"""The command ``upgrade``: decides whether stored vectors can be carried into a new model's space."""

import re
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from lfm_atlas.console import (
    DEFAULT_CATALOG,
    OK,
    USAGE,
    CatalogPath,
    DatasetOfBoth,
    Force,
    TextOrJson,
    TrustCode,
    as_json,
    escape_unprintable,
    exit_if_data_refused,
    exit_if_refused,
    load_catalog_or_exit,
    no_progress,
    print_err,
    print_out,
    progress,
)

# Of common inputs that the curve is drawn from: more make it slower and its intervals hardly narrower.
_MOST_INPUTS = 20_000


def add_commands(app: App) -> None:
    """Add the commands of this module to ``app``."""
    app.command(upgrade)


def upgrade(
    old: Annotated[str, Parameter(help="The store in the old model's space: file, file#key, or model/layer.")],
    new: Annotated[str, Parameter(help="Vectors of the new model for some of the same inputs.")],
    *,
    catalog_path: CatalogPath = DEFAULT_CATALOG,
    dataset: DatasetOfBoth = None,
    old_ids: Annotated[str | None, Parameter(help="File of the old vectors' ids, if they are elsewhere.")] = None,
    new_ids: Annotated[str | None, Parameter(help="File of the new vectors' ids, if they are elsewhere.")] = None,
    labels: Annotated[str | None, Parameter(help="File of the new vectors' labels: classes, languages.")] = None,
    sizes: Annotated[str, Parameter(help="Numbers of pairs, separated by commas.")] = "10,20,50,100,200,500,1000,2500",
    k: Annotated[int, Parameter(name=["--k", "-k"], help="The k of recall@k.")] = 10,
    draws: Annotated[int, Parameter(help="How often the pairs are drawn.")] = 3,
    unpaired: Annotated[
        Literal["other", "same"],
        Parameter(help="Inputs of the unpaired vectors on the two sides: different ones, or the same."),
    ] = "other",
    at_least: Annotated[float, Parameter(help="Share of re-embedding's recall that must remain.")] = 0.95,
    seed: Annotated[int, Parameter(help="Draws the queries and the pairs.")] = 0,
    save: Annotated[
        Path | None, Parameter(help="Folder to write the maps of all pairs to: stored.* and queries.*.")
    ] = None,
    force: Force = False,
    format: TextOrJson = "text",
    trust_code: TrustCode = False,
) -> int:
    """Measure how much search quality stored vectors keep when they are carried into a new model's space."""
    from lfm_tasks.stores.outputs import check_output_folder
    from lfm_tasks.threads import one_thread
    from lfm_tasks.upgrades.evidence import CurveOptions, check_rows, upgrade_evidence
    from lfm_tasks.upgrades.export import files_of_maps, folder_for_maps, save_upgrade
    from lfm_tasks.upgrades.files import evidence_as_dict, evidence_as_lines
    from lfm_tasks.upgrades.groups import clusters_by_name
    from lfm_tasks.upgrades.stores import common_rows, is_file_name, open_space, open_store
    from lfm_tasks.upgrades.verdict import judge

    if not re.fullmatch(r"[0-9]{1,9}(,[0-9]{1,9})*", sizes) or min(map(int, sizes.split(","))) < 5:
        print_err(f"got --sizes {sizes[:60]}, expected whole numbers from 5 on, separated by commas: 10,100,1000")
        return USAGE
    if k < 1 or draws < 1 or seed < 0 or not 0 < at_least <= 1:
        print_err(
            "got --k, --draws, --seed or --at-least out of range, expected k and draws from 1, seed from 0, 0 to 1"
        )
        return USAGE
    catalog = None
    if not (is_file_name(old) and is_file_name(new)):
        catalog = load_catalog_or_exit(catalog_path, trust_code)
    with exit_if_refused(), exit_if_data_refused(), one_thread():
        if save is not None:
            check_output_folder(save, files_of_maps(), force=force)
        with folder_for_maps(save):
            stores = [
                open_store(name, ids, of_labels)
                if is_file_name(name) or catalog is None
                else open_space(name, catalog, dataset)
                for name, ids, of_labels in ((old, old_ids, None), (new, new_ids, labels))
            ]
            common = common_rows(stores[0], stores[1], _MOST_INPUTS, seed=seed)
            check_rows(common.old, common.new)
            groups = clusters_by_name(common.new, common.ids, seed=seed) if common.labels is None else common.labels
            options = CurveOptions(tuple(map(int, sizes.split(","))), k, draws, unpaired=unpaired, seed=seed)
            with progress() as report_progress:
                reported = report_progress if format == "text" else no_progress
                evidence = upgrade_evidence(common.old, common.new, options, groups, reported)
            verdict, notes = judge(evidence, at_least), common.notes
            if evidence.k < k:
                notes = (*notes, f"recall@{evidence.k} in place of recall@{k}: a quarter of the stored inputs at most")
            if format == "json":
                print_out(as_json(evidence_as_dict(evidence, verdict, notes)))
            else:
                for line in evidence_as_lines(evidence, verdict, notes):
                    print_out(escape_unprintable(line))
            if save is not None:
                save_upgrade(save, common.old, common.new, evidence, verdict, force=force)
    if save is not None:
        print_err(f"wrote {save}: next: lfm-atlas transfer {save}/stored.safetensors STORE OUTPUT --confidence")
    return OK
