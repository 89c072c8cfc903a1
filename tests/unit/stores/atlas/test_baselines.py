"""A baseline is the atlas, copied whole; what is damaged is never promoted."""

from pathlib import Path

import pytest

from lfm_tasks.stores.atlas.files import age_in_days, published_key
from lfm_tasks.stores.atlas.publication import promote, publish
from lfm_tasks.stores.atlas.schema import read_manifest


def write(folder: Path, key: str) -> Path:
    with publish(folder, key) as staged:
        (staged / "summary.json").write_text(key)
    return folder


def test_promote__copies_whole_and_once(tmp_path: Path) -> None:
    atlas, baseline = write(tmp_path / "atlas", "first"), tmp_path / "baseline"

    assert promote(atlas, baseline) is True
    assert promote(atlas, baseline) is False
    write(atlas, "second")
    assert promote(atlas, baseline) is True

    assert published_key(baseline) == "second"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["atlas", "baseline"]
    assert 0 <= age_in_days(baseline) < 1


def test_baseline__says_whose_it_is(tmp_path: Path) -> None:
    atlas, baseline = write(tmp_path / "atlas", "first"), tmp_path / "baseline"
    (atlas / ".DS_Store").write_text("window")

    assert promote(atlas, baseline, catalog="ours") is True
    assert promote(atlas, baseline, catalog="ours") is False
    assert read_manifest(baseline, "").catalog == "ours"
    assert not (baseline / ".DS_Store").exists()
    # The same atlas, of a catalog that was renamed.
    assert promote(atlas, baseline, catalog="renamed") is True
    assert read_manifest(baseline, "").catalog == "renamed"


def test_promote__refuses_a_damaged_atlas(tmp_path: Path) -> None:
    atlas = write(tmp_path / "atlas", "first")
    (atlas / "summary.json").write_text("other")

    with pytest.raises(FileNotFoundError, match="got no whole atlas"):
        promote(atlas, tmp_path / "baseline")
    assert not (tmp_path / "baseline").exists()
