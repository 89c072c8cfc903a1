"""Files of a repository that only say which content git-lfs or git-annex would put in their place."""

from pathlib import Path

import pytest

from lfm_tasks.catalog import CatalogError, read_catalog
from lfm_tasks.errors import DataError
from lfm_tasks.sources.files.formats import FORMATS, open_array
from lfm_tasks.sources.files.paths import refuse_pointer
from lfm_tasks.sources.files.tables import TABLES, read_table

LFS = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)
ANNEX = "/annex/objects/SHA256E-s12345--4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393.npy\n"


@pytest.mark.parametrize("suffix", FORMATS)
def test_pointer__is_named_whatever_the_file_should_be(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"acts{suffix}"
    place = path / "c" / "0" if suffix == ".zarr" else path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(LFS, encoding="ascii")
    if suffix == ".zarr":
        (path / "zarr.json").write_text("{}", encoding="ascii")
    with pytest.raises(DataError, match=r"got a git-lfs pointer of 130 bytes, .*\. Fetch it: git lfs pull") as error:
        open_array(path, path.name, "layer" if suffix in {".npz", ".h5", ".pt"} else None)
    assert error.value.reason == "damaged_source"


@pytest.mark.parametrize("suffix", TABLES)
def test_pointer__is_no_table(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"rows{suffix}").write_text(LFS, encoding="ascii")
    with pytest.raises(DataError, match="got a git-lfs pointer"):
        list(read_table(tmp_path / f"rows{suffix}", f"rows{suffix}", ["text"]))


def test_pointer_of_git_annex__is_named_too(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_text(ANNEX, encoding="ascii")
    with pytest.raises(DataError, match=r"a.npy: got a git-annex pointer .*Fetch it: git annex get"):
        open_array(tmp_path / "a.npy", "a.npy")


def test_pointer_instead_of_the_catalog__is_named(tmp_path: Path) -> None:
    (tmp_path / "data_catalog.yaml").write_text(LFS, encoding="ascii")
    with pytest.raises(CatalogError, match="got a git-lfs pointer, expected the catalog"):
        read_catalog(tmp_path / "data_catalog.yaml")


def test_other_files__are_left_to_their_readers(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("version\nhttps\n", encoding="ascii")
    refuse_pointer(tmp_path / "ids.txt", "ids.txt")
    refuse_pointer(tmp_path / "nothing.txt", "nothing.txt")
    assert open_array(tmp_path / "ids.txt", "ids.txt").shape == (2,)
