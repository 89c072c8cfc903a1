"""An object store seen whole: which units lie there, whether they are as committed, which of them an atlas was made of.

Only for who holds its lock. What an atlas was made of is noted beside it, in ``references/<key>.json``.
"""

import json
import shutil
from collections.abc import Iterator
from uuid import uuid4

from lfm_tasks.stores.atlas.files import atlas_damages
from lfm_tasks.stores.remote.units import RemoteUnits, delete, fetch_below, objects_below, read_object
from lfm_tasks.stores.units.integrity import Damage
from lfm_tasks.stores.units.references import Note, Unit, note_of
from lfm_tasks.stores.units.store import CorruptUnitError


def units_there(store: RemoteUnits) -> set[Unit]:
    """Return all units that have a receipt there."""
    parts = (name.split("/") for name in objects_below(f"{store.remote}/receipts"))
    return {(own[0], own[1].removesuffix(".json")) for own in parts if len(own) == 2}


def damages_there(store: RemoteUnits) -> Iterator[Damage]:
    """Yield the units, and files of the atlas, that are not as they were put; every byte is fetched and checked."""
    scratch = store.root / "staging" / f"verified-{uuid4().hex}"
    other = RemoteUnits(scratch, store.remote)  # a machine that has no copies
    try:
        for kind, key in sorted(units_there(store)):
            try:
                other.check(kind, key)
            except CorruptUnitError as error:
                yield Damage(f"{store.remote}/units/{kind}/{key}", str(error))
            shutil.rmtree(other.local.unit_path(kind, key), ignore_errors=True)
        if (current := current_atlas(store)) is not None:
            place = f"{store.remote}/atlas/{current}"
            (scratch / "atlas").mkdir(parents=True)
            fetch_below(place, scratch / "atlas")
            yield from (Damage(place, found) for found in atlas_damages(scratch / "atlas"))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def current_atlas(store: RemoteUnits) -> str | None:
    """Return the key of the atlas that counts there; None: there is none."""
    try:
        return str(json.loads(read_object(f"{store.remote}/atlas/current.json")[0])["key"])
    except FileNotFoundError:
        return None


def notes_there(store: RemoteUnits) -> dict[str, Note | None]:
    """Return what each atlas there was made of, by its key; None where that is not noted, or damaged."""
    keys = sorted({name.partition("/")[0] for name in objects_below(f"{store.remote}/atlas") if "/" in name})
    return {key: _note(store, key) for key in keys}


def forget_notes(store: RemoteUnits) -> None:
    """Remove the notes of atlases that are not there any more."""
    there = {f"{key}.json" for key in notes_there(store)}
    for name in objects_below(f"{store.remote}/references").keys() - there:
        delete(f"{store.remote}/references/{name}")


def bytes_there(store: RemoteUnits, unit: Unit) -> int:
    """Return the bytes that a unit's files take there."""
    return sum(objects_below(f"{store.remote}/units/{unit[0]}/{unit[1]}").values())


def remove_there(store: RemoteUnits, unit: Unit) -> None:
    """Remove a unit: its receipt first, so that a kill leaves no word of what is gone."""
    kind, key = unit
    delete(f"{store.remote}/receipts/{kind}/{key}.json")
    place = f"{store.remote}/units/{kind}/{key}"
    for name in objects_below(place):
        delete(f"{place}/{name}")


def _note(store: RemoteUnits, key: str) -> Note | None:
    try:
        return note_of(key, read_object(f"{store.remote}/references/{key}.json")[0])
    except (FileNotFoundError, ValueError):
        return None
