"""Contents of an object store: its units and atlases, which of them are damaged, and their removal."""

import re
import shutil
from collections.abc import Iterator
from uuid import uuid4

from lfm_tasks.errors import CorruptUnitError
from lfm_tasks.stores.atlas.files import atlas_damages
from lfm_tasks.stores.references import AtlasReference, UnitId, parse_reference
from lfm_tasks.stores.remote.store import RemoteUnitStore, receipt_name, unit_folder
from lfm_tasks.stores.units.integrity import Corruption

_REFERENCE = re.compile(r"[0-9a-f]{64}\.json")


def find_remote_corruption(store: RemoteUnitStore) -> Iterator[Corruption]:
    """Yield the units and files of the remote atlas that are damaged; every byte is fetched and checked."""
    scratch = store.root / "staging" / f"verified-{uuid4().hex}"
    other = RemoteUnitStore(scratch, store.remote)  # a machine that has no copies
    try:
        for kind, key in sorted(store.stored_remotely()):
            try:
                other.check(kind, key)
            except CorruptUnitError as error:
                yield Corruption(f"{store.remote}/units/{kind}/{key}", str(error))
            shutil.rmtree(other.local.unit_path(kind, key), ignore_errors=True)
        if (current := store.current_atlas()) is not None:
            (scratch / "atlas").mkdir(parents=True)
            store.objects.fetch(f"atlas/{current}", scratch / "atlas")
            place = f"{store.remote}/atlas/{current}"
            yield from (Corruption(place, damage) for damage in atlas_damages(scratch / "atlas"))
        if not store.names_current_atlas():
            yield Corruption(f"{store.remote}/atlas/current.json", "it names no atlas; the next run writes it again")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def read_remote_references(store: RemoteUnitStore) -> dict[str, AtlasReference | None]:
    """Return the reference of each remote atlas by its key; None where it is missing or damaged."""
    keys = sorted({name.partition("/")[0] for name in store.objects.below("atlas") if "/" in name})
    return {key: _read_reference(store, key) for key in keys}


def remove_stale_references(store: RemoteUnitStore) -> None:
    """Remove the references of atlases that are not in the remote store any more."""
    live = {f"{key}.json" for key in read_remote_references(store)}
    stale = [name for name in store.objects.below("references").keys() - live if _REFERENCE.fullmatch(name)]
    store.check_lock()
    store.objects.delete(*(f"references/{name}" for name in stale))


def remote_unit_bytes(store: RemoteUnitStore, unit: UnitId) -> int:
    """Return the bytes that a unit's files take in the remote store."""
    return sum(facts.size for facts in store.objects.below(unit_folder(*unit)).values())


def remove_remote_unit(store: RemoteUnitStore, unit: UnitId) -> None:
    """Remove a unit: its receipt first, so that a kill leaves no receipt of a unit that is gone."""
    store.check_lock()
    store.objects.delete(receipt_name(*unit))
    place = unit_folder(*unit)
    store.objects.delete(*(f"{place}/{name}" for name in store.objects.below(place)))


def _read_reference(store: RemoteUnitStore, key: str) -> AtlasReference | None:
    try:
        return parse_reference(key, store.objects.read(f"references/{key}.json").content)
    except (FileNotFoundError, ValueError):
        return None
