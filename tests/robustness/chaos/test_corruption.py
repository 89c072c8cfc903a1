"""A thousand random damages of the store and of the published atlas: each is found and named, none is read as data."""

import json
import random
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lfm_atlas import AtlasError, open_atlas
from lfm_tasks.catalog import read_catalog
from lfm_tasks.errors import CorruptUnitError, FolderError
from lfm_tasks.maintenance import verify
from lfm_tasks.stores.units.store import UnitStore

pytestmark = pytest.mark.chaos
N_DAMAGES = 1000
# Every so many damages a run has to make the zoo whole again.
RUN_EVERY = 25


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)


def flip_bit(chance: random.Random, path: Path, others: list[Path]) -> None:
    content = bytearray(path.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def truncate(chance: random.Random, path: Path, others: list[Path]) -> None:
    path.write_bytes(path.read_bytes()[: chance.randrange(1, path.stat().st_size)] if path.stat().st_size > 1 else b"")


def empty(chance: random.Random, path: Path, others: list[Path]) -> None:
    path.write_bytes(b"")


def delete(chance: random.Random, path: Path, others: list[Path]) -> None:
    path.unlink()


def zero_block(chance: random.Random, path: Path, others: list[Path]) -> None:
    content = bytearray(path.read_bytes())
    start = content.index(next(byte for byte in content if byte))
    content[start : start + 512] = bytes(len(content[start : start + 512]))
    path.write_bytes(content)


def append(chance: random.Random, path: Path, others: list[Path]) -> None:
    path.write_bytes(path.read_bytes() + chance.randbytes(chance.randrange(1, 64)))


def swap(chance: random.Random, path: Path, others: list[Path]) -> None:
    other = chance.choice([one for one in others if one.read_bytes() != path.read_bytes()])
    mine, theirs = path.read_bytes(), other.read_bytes()
    path.write_bytes(theirs)
    other.write_bytes(mine)


def stale(chance: random.Random, path: Path, others: list[Path]) -> None:
    """Put a file of the same name but another unit or version in its place, as a bad restore does."""
    twins = [one for one in others if one.name == path.name and one.read_bytes() != path.read_bytes()]
    path.write_bytes(chance.choice(twins).read_bytes() if twins else path.read_bytes()[::-1] + b"0")


def add_file(chance: random.Random, path: Path, others: list[Path]) -> None:
    path.with_name(f"{path.name}.bak").write_bytes(path.read_bytes())


def rename_file(chance: random.Random, path: Path, others: list[Path]) -> None:
    path.rename(path.with_name(f"{path.name}0"))


def make_folder(chance: random.Random, path: Path, others: list[Path]) -> None:
    path.unlink()
    path.mkdir()


def link(chance: random.Random, path: Path, others: list[Path]) -> None:
    elsewhere = next(above for above in path.parents if (above / "data_catalog.yaml").exists()) / "linked"
    shutil.copyfile(path, elsewhere)
    path.unlink()
    path.symlink_to(elsewhere)


def edit_number(chance: random.Random, path: Path, others: list[Path]) -> None:
    """Change one digit, as a person with an editor does."""
    content = bytearray(path.read_bytes())
    digits = [place for place, byte in enumerate(content) if chr(byte).isdigit()] or [0]
    place = chance.choice(digits)
    content[place] = content[place] + 1 if content[place] != ord("9") else ord("1")
    path.write_bytes(content)


OF_FILES = (
    flip_bit, truncate, empty, delete, zero_block, append, swap, stale, add_file, rename_file, make_folder, link,
    edit_number,
)  # fmt: skip


def lose_unit(chance: random.Random, unit: Path, others: list[Path]) -> None:
    shutil.rmtree(unit)


def rename_unit(chance: random.Random, unit: Path, others: list[Path]) -> None:
    unit.rename(unit.with_name(unit.name[::-1]))


def other_unit(chance: random.Random, unit: Path, others: list[Path]) -> None:
    other = chance.choice([one for one in others if one != unit and one.parent == unit.parent] or [unit.parent])
    shutil.rmtree(unit)
    if other != unit.parent:
        shutil.copytree(other, unit)


OF_UNITS = (lose_unit, rename_unit, other_unit)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory, tiny_zoo: Callable[..., Path], build: Any) -> Path:
    folder = tiny_zoo(tmp_path_factory.mktemp("pristine"), 3)
    build(folder)
    assert not verify(read_catalog(folder / "data_catalog.yaml")).damages
    return folder


def restore(whole: dict[str, bytes], folder: Path) -> None:
    """Make store and atlas what they were; only what differs is written."""
    for part in (".lfm-atlas", "atlas"):
        for path in sorted((folder / part).rglob("*"), reverse=True):
            name = path.relative_to(folder).as_posix()
            if path.is_symlink() or (path.is_file() and name not in whole and name != ".lfm-atlas/store.json"):
                path.unlink()
            elif path.is_dir() and (name in whole or not any(path.iterdir())):
                path.rmdir()
    for name, content in whole.items():
        path = folder / name
        if not path.is_file() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def damage(chance: random.Random, folder: Path) -> tuple[str, str, set[str]]:
    """Damage one thing; return what was done, where, and the names one of which has to be told."""
    store, atlas = folder / ".lfm-atlas", folder / "atlas"
    if chance.random() < 0.1:
        units = sorted(store.glob("units/*/*"))
        unit = chance.choice(units)
        done = chance.choice(OF_UNITS)
        done(chance, unit, units)
        return done.__name__, "unit", {unit.name, unit.name[::-1]}
    part = chance.choice([store / "units", store / "units", store / "receipts", store / "references", atlas])
    path, done = chance.choice(files(part)), chance.choice(OF_FILES)
    done(chance, path, files(store / "units") + files(store / "receipts") + files(atlas))
    whose = path.relative_to(store / "units").parts[1] if part == store / "units" else path.stem
    return done.__name__, part.name, {whose, path.name, path.relative_to(part).as_posix()}


def test_thousand_damages__are_found_named_and_mended(
    tmp_path: Path,
    pristine: Path,
    build: Any,
    state: Callable[[Path], Any],
    figure: Callable[[str], None],
) -> None:
    folder = tmp_path / "zoo"
    shutil.copytree(pristine, folder)
    catalog, expected = read_catalog(folder / "data_catalog.yaml"), state(pristine)
    whole, arrays = everything(pristine), read_arrays(pristine)
    kinds: Counter[str] = Counter()
    n_runs = 0
    for seed in range(N_DAMAGES):
        restore(whole, folder)
        chance = random.Random(seed)  # noqa: S311 - damages, no secrets
        kind, part, names = damage(chance, folder)
        assert everything(folder) != whole or kind in ("make_folder", "link"), (seed, kind, part)
        kinds[kind] += 1

        told = [f"{one.place}: {one.description}" for one in verify(catalog).damages]

        assert any(name in line for name in names for line in told), (seed, kind, part, names, told)
        for unit, content in read_arrays(folder).items():
            assert content == arrays[unit], (seed, kind, part, unit)
        if seed % RUN_EVERY == 0:
            before = receipts(folder)
            if part == "atlas" and (foreign := files_of_nobody(folder / "atlas", whole)):
                # Somebody's, for all that lfm-atlas knows: a run waits until it is moved away.
                with pytest.raises(FolderError, match=re.escape(foreign[0])):
                    build(folder)
                for name in foreign:
                    (folder / "atlas" / name).unlink()
            outcome = build(folder)
            n_runs += 1
            assert outcome.failures == (), (seed, kind, part)
            assert state(folder) == expected, (seed, kind, part)
            assert verify(catalog).damages == (), (seed, kind, part)
            made_again = {stem for stem, when in receipts(folder).items() if before.get(stem) != when}
            assert all(any(stem in line for line in told) for stem in made_again), (seed, kind, part, made_again, told)
    figure(f"damages: {N_DAMAGES} of {len(kinds)} kinds, all found and named; {n_runs} runs made the store whole again")


def files_of_nobody(atlas: Path, whole: dict[str, bytes]) -> list[str]:
    """Return the files in ``atlas`` that were not published."""
    names = sorted(path.relative_to(atlas).as_posix() for path in atlas.rglob("*") if not path.is_dir())
    return [name for name in names if f"atlas/{name}" not in whole]


def receipts(folder: Path) -> dict[str, int]:
    """Return when each unit was committed."""
    return {path.stem: path.lstat().st_mtime_ns for path in folder.glob(".lfm-atlas/receipts/*/*.json")}


def everything(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all files that have to be whole."""
    parts = (".lfm-atlas/units", ".lfm-atlas/receipts", ".lfm-atlas/references", "atlas")
    paths = [path for part in parts for path in (folder / part).rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def read_arrays(folder: Path) -> dict[str, bytes]:
    """Return what can be read: an array of each unit, and the scores of the atlas. What is refused is not in it."""
    store, found = UnitStore(folder / ".lfm-atlas"), {}
    for kind, name in (("bases", "eigenvectors"), ("scores", "values")):
        for path in sorted((store.root / "receipts" / kind).glob("*.json")):
            try:
                store.check(kind, path.stem)
            except CorruptUnitError:
                continue
            with store.open(kind, path.stem) as unit:
                found[f"{kind}/{path.stem}"] = unit.read(name).tobytes()
    try:
        with open_atlas(folder / "atlas") as atlas:
            found["atlas"] = atlas.scores["score"].values.tobytes()
    except AtlasError:
        pass
    return found


def test_note_of_an_atlas_that_is_damaged__keeps_prune_from_removing_what_it_named(
    tmp_path: Path, pristine: Path
) -> None:
    from lfm_tasks.errors import DataError
    from lfm_tasks.maintenance import prune

    folder = tmp_path / "zoo"
    shutil.copytree(pristine, folder)
    [note] = (folder / ".lfm-atlas" / "references").iterdir()
    other = note.with_name(f"{'0' * 64}.json")
    other.write_text(json.dumps({"body": {}}))
    with pytest.raises(DataError, match="damaged, so nobody knows which units its atlas was made of"):
        prune(read_catalog(folder / "data_catalog.yaml"), remove=True)
