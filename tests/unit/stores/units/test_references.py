"""Notes of what atlases were made of: alive as long as a folder holds the atlas."""

from pathlib import Path

from lfm_tasks.stores.atlas.files import publish
from lfm_tasks.stores.units.references import is_live, note_folder, note_units, read_note


def test_note__lives_while_one_of_its_folders_holds_the_atlas(tmp_path: Path) -> None:
    root = tmp_path / "store"
    with publish(tmp_path / "atlas", "old"):
        pass
    note_units(root, "old", {"bases": ["b", "a"]}, ["s"], tmp_path / "atlas")
    note_folder(root, "old", tmp_path / "baseline")

    note = read_note(root, "old")

    assert note is not None
    assert (note.units, note.others) == ({("bases", "a"), ("bases", "b")}, {"s"})
    assert note.folders == ("../atlas", "../baseline")
    assert is_live(root, note)
    with publish(tmp_path / "atlas", "new"):
        pass
    assert not is_live(root, note)
    with publish(tmp_path / "baseline", "old"):
        pass
    assert is_live(root, note)


def test_folder_of_an_atlas_that_was_never_noted__is_not(tmp_path: Path) -> None:
    note_folder(tmp_path, "unknown", tmp_path / "baseline")

    assert read_note(tmp_path, "unknown") is None
