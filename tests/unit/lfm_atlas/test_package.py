"""The package ``lfm_atlas``: its public names, and what their import costs."""

import subprocess
import sys

import pytest

import lfm_atlas
from lfm_tasks.published.atlas import open_atlas
from lfm_tasks.spectral.transfer.selection import fit_map
from lfm_tasks.stores.atlas.schema import AtlasError


def modules_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


def test_public_names__are_listed_and_are_those_of_the_library() -> None:
    assert dir(lfm_atlas) == [
        "AtlasError", "Comparison", "LatentFunctionalMap", "__version__", "compare", "fit_map", "measures", "open_atlas"
    ]  # fmt: skip
    assert all(getattr(lfm_atlas, name) is not None for name in lfm_atlas.__all__)
    assert (lfm_atlas.AtlasError, lfm_atlas.fit_map, lfm_atlas.open_atlas) == (AtlasError, fit_map, open_atlas)


def test_unknown_name__is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'lfm_atlas' has no attribute 'open_atlsa'"):
        lfm_atlas.open_atlsa  # noqa: B018


@pytest.mark.parametrize("package", ["lfm_atlas", "lfm_tasks"])
def test_import__loads_nothing_heavy(package: str) -> None:
    assert not {"numpy", "xarray", "zarr", "pandas", "pyarrow", "prefect"} & modules_after(f"import {package}")


def test_server__starts_before_prefect_is_imported() -> None:
    assert "prefect" not in modules_after("import lfm_atlas.prefect_server")
