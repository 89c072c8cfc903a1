"""Stage publish: write the atlas and its report, whole, or leave the published one if nothing has changed."""

from lfm_tasks.stages.atlas import Contents, assemble, edges, summary
from lfm_tasks.stages.report import render_report
from lfm_tasks.stages.run import Run
from lfm_tasks.stages.zoo_statistics import MODEL_TEXTS, model_tables
from lfm_tasks.stores.atlas_files import publish, published_key, write_atlas, write_edges, write_json, write_table


def publish_atlas(run: Run, found: Contents) -> bool:
    """Publish the atlas; return whether there was anything new to publish. Only a whole one replaces what is there."""
    if found.unpublished:
        run.tally.count("atlas", 0, 0)
        return False
    run.announce("atlas", 0, 1)
    is_new = published_key(run.atlas_folder) != found.key
    if is_new:
        atlas = assemble(run, found)
        facts = summary(run, found)
        with publish(run.atlas_folder, found.key) as folder:
            write_atlas(atlas, folder)
            write_edges(edges(atlas), folder)
            for name, columns in zip(("models", "layers"), model_tables(atlas), strict=True):
                write_table(columns, MODEL_TEXTS, folder / f"{name}.parquet")
            write_json(facts, folder / "summary.json")
            (folder / "report.html").write_text(render_report(atlas, facts), encoding="utf-8")
    run.tally.count("atlas", int(is_new), int(not is_new))
    run.announce("atlas", 1, 1)
    return is_new
