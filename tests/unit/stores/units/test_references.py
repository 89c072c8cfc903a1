"""Notes of what atlases were made of: alive as long as a folder holds the atlas."""

from pathlib import Path

from lfm_tasks.stores.atlas.files import publish
from lfm_tasks.stores.units.references import add_reference_folder, is_live, read_reference, write_reference


def test_reference__lives_while_one_of_its_folders_holds_the_atlas(tmp_path: Path) -> None:
    root = tmp_path / "store"
    with publish(tmp_path / "atlas", "old"):
        pass
    write_reference(root, "old", {"bases": ["b", "a"]}, ["s"], tmp_path / "atlas")
    add_reference_folder(root, "old", tmp_path / "baseline")

    reference = read_reference(root, "old")

    assert reference is not None
    assert (reference.units, reference.section_keys) == ({("bases", "a"), ("bases", "b")}, {"s"})
    assert reference.folders == ("../atlas", "../baseline")
    assert is_live(root, reference)
    with publish(tmp_path / "atlas", "new"):
        pass
    assert not is_live(root, reference)
    with publish(tmp_path / "baseline", "old"):
        pass
    assert is_live(root, reference)


def test_folder_of_an_atlas_that_was_never_referenced__is_not(tmp_path: Path) -> None:
    add_reference_folder(tmp_path, "unknown", tmp_path / "baseline")

    assert read_reference(tmp_path, "unknown") is None
