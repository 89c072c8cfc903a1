"""The commands ``lfm-atlas catalog ...``: what a catalog says, and what it may say."""

import json

from cyclopts import App

from flows.console import DEFAULT_CATALOG, OK, CatalogPath, complain, read_or_leave, say

catalog_app = App(name="catalog", help="Show the catalog as it is understood, or the JSON schema for editors.")


@catalog_app.command
def show(catalog: CatalogPath = DEFAULT_CATALOG) -> int:
    """Print the catalog with variables, defaults and discovered models worked in: a catalog itself."""
    from lfm_tasks.catalog.writing import catalog_yaml

    settings = read_or_leave(catalog)
    for warning in settings.warnings():
        complain(warning)
    for refused in settings.refused:
        complain(f"{refused.found}: {refused.message} [refused_arrival]")
    say(catalog_yaml(settings).rstrip())
    return OK


@catalog_app.command
def schema() -> int:
    """Print the JSON schema of a catalog, for editors that complete and check while one writes."""
    from lfm_tasks.catalog import catalog_schema

    say(json.dumps(catalog_schema(), indent=1, ensure_ascii=False))
    return OK
