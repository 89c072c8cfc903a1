"""Notes of what atlases were made of: alive as long as a folder holds the atlas."""

from pathlib import Path

from lfm_tasks.stores.atlas.publication import publish
from lfm_tasks.stores.references import add_reference_folder, is_live, missing_folders, read_reference, write_reference


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


def test_foreign_manifest__is_no_atlas_that_took_the_place_of_another(tmp_path: Path) -> None:
    root = tmp_path / "store"
    write_reference(root, "old", {"bases": ["a"]}, [], tmp_path / "atlas")
    reference = read_reference(root, "old")
    assert reference is not None

    (tmp_path / "atlas").mkdir()
    for content in ('{"key": "other"}', '{"key": "old"}', "[]", "{"):
        (tmp_path / "atlas" / "manifest.json").write_text(content)

        assert not is_live(root, reference)
        assert missing_folders(root, reference) == ("../atlas",)


def test_folder_of_an_atlas_that_was_never_referenced__is_not(tmp_path: Path) -> None:
    add_reference_folder(tmp_path, "unknown", tmp_path / "baseline")

    assert read_reference(tmp_path, "unknown") is None
