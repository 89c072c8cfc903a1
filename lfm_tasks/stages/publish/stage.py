"""Stage publish: write the atlas and its report, whole, or leave the published one if nothing has changed."""

from dataclasses import asdict

import xarray as xr

from lfm_tasks.runtime.run import Run
from lfm_tasks.stages.publish.assemble import assemble
from lfm_tasks.stages.publish.contents import Contents, section_groups, summary
from lfm_tasks.stages.publish.tables import MODEL_TEXTS, edges, layer_rows, model_rows
from lfm_tasks.stores.atlas.files import publish, published_key, write_atlas, write_edges, write_json, write_table
from lfm_tasks.stores.remote import RemoteUnits
from lfm_tasks.stores.units.references import holds_atlas, note_units


def publish_atlas(run: Run, found: Contents) -> bool:
    """Publish the atlas; return whether there was anything new to publish. Only a whole one replaces what is there."""
    run.notes.update(
        key=found.key,
        spaces=len(found.spaces),
        failures=[asdict(failure) for failure in found.failures],
        pairs_without_score=[asdict(refused) for refused in found.refused],
        unpublished=found.unpublished,
    )
    if found.unpublished:
        run.stage_counts.count("atlas", 0, 0)
        return False
    run.announce("atlas", 0, 1)
    is_new = published_key(run.atlas_folder) != found.key
    if is_new:
        groups = section_groups(run, found.sections)
        atlas = with_group(assemble(run, found), groups.pop("", None))
        facts = summary(run, found)
        is_ours = holds_atlas(run.store.root, run.atlas_folder)
        with publish(run.atlas_folder, found.key, is_ours=is_ours) as folder:
            write_atlas(atlas, groups, folder)
            write_edges(edges(atlas), folder)
            for name, rows in (("models", model_rows), ("layers", layer_rows)):
                write_table(rows(atlas), MODEL_TEXTS, folder / f"{name}.parquet")
            write_json(facts, folder / "summary.json")
            from lfm_tasks.report import (
                render_report,  # Bokeh takes half a second: a run without news needs none
            )

            (folder / "report.html").write_text(render_report(atlas, facts, groups), encoding="utf-8")
    note_units(run.store.root, found.key, found.units, found.section_keys, run.atlas_folder)
    if isinstance(run.store, RemoteUnits):
        run.store.publish_copy(run.atlas_folder, found.key)
    run.stage_counts.count("atlas", int(is_new), int(not is_new))
    run.announce("atlas", 1, 1)
    return is_new


def with_group(atlas: xr.Dataset, more: xr.Dataset | None) -> xr.Dataset:
    """Return the atlas with more variables on its own labels, NaN where they have none."""
    if more is None:
        return atlas
    own = {dim: atlas[dim] for dim in ("dataset", "source", "target") if dim in more.dims}
    return atlas.merge(more.reindex(own), join="exact", combine_attrs="override")
