"""An atlas that is published again while it is read: every read is one whole version, or says that it is not."""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from lfm_tasks import AtlasError, open_atlas
from lfm_tasks.published.atlas import Atlas
from lfm_tasks.stores.atlas.files import publish, write_atlas

N_READS = 200


@pytest.fixture
def versions(small: Atlas, tmp_path: Path) -> dict[str, tuple[Path, np.ndarray]]:
    """Give two whole atlases by key: the small one, and one of other scores and half the spaces."""
    scores = small.scores.load()
    half = scores.isel(source=slice(0, 4), target=slice(0, 4))
    found = {}
    for key, version in {"a": scores, "b": half.assign(score=half["score"] + 1)}.items():
        folder = tmp_path / "versions" / key
        shutil.copytree(small.folder, folder)
        shutil.rmtree(folder / "atlas.zarr")
        write_atlas(version, {}, folder)
        found[key] = (folder, version["score"].values)
    return found


def put(versions: dict[str, tuple[Path, np.ndarray]], key: str, place: Path) -> None:
    with publish(place, key) as staged:
        shutil.copytree(versions[key][0], staged, dirs_exist_ok=True, ignore=shutil.ignore_patterns("manifest.json"))


@contextmanager
def published_again_and_again(versions: dict[str, tuple[Path, np.ndarray]], place: Path) -> Iterator[list[str]]:
    ended, commits = threading.Event(), list[str]()

    def work() -> None:
        while not ended.is_set():
            for key in versions:
                put(versions, key, place)
                commits.append(key)

    writer = threading.Thread(target=work)
    writer.start()
    try:
        yield commits
    finally:
        ended.set()
        writer.join()


def test_reads_during_commits__see_whole_versions_only(
    versions: dict[str, tuple[Path, np.ndarray]], tmp_path: Path
) -> None:
    place, seen, told = tmp_path / "atlas", list[str](), list[str]()
    put(versions, "b", place)
    with published_again_and_again(versions, place) as commits:
        while len(seen) < N_READS:
            try:
                with open_atlas(place) as atlas:
                    values = atlas.scores["score"].values
            except AtlasError as error:
                told.append(str(error))
                continue
            np.testing.assert_array_equal(values, versions[atlas.key][1])
            seen.append(atlas.key)
    assert set(seen) == {"a", "b"}
    assert len(commits) > 5
    assert all("open it" in message for message in told)


def test_arrays_read_after_another_was_published__are_refused(
    versions: dict[str, tuple[Path, np.ndarray]], tmp_path: Path
) -> None:
    place = tmp_path / "atlas"
    put(versions, "a", place)
    with open_atlas(place) as atlas:
        put(versions, "b", place)

        with pytest.raises(AtlasError, match=r"published again or damaged since: open it again"):
            atlas.scores["score"].values  # noqa: B018 - reading is what it does
        assert atlas.section("maps/probe") is None
