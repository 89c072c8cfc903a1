"""The files of one published atlas as Zarr reads them, each checked against the manifest."""

import hashlib
from pathlib import Path

from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore

from lfm_tasks.stores.atlas.schema import ZARR, Manifest, changed_file


class AtlasStore(LocalStore):
    """The files of one published atlas and no others: one that was published since is not read in its place.

    An atlas is replaced while people have it open. Without this, what they read later would be arrays of the next one,
    or, where that has no such chunk, Zarr's fill value.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        super().__init__(folder / ZARR, read_only=True)
        self._files = manifest.files

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return a file's bytes, None where the atlas has no such file; `AtlasError` if it is not as published."""
        expected = self._files.get(f"{ZARR}/{key}")
        if expected is None:
            return None
        # Whole, whatever part is requested: only the whole can be checked.
        buffer = await super().get(key, prototype)
        if buffer is None or hashlib.sha256(buffer.to_bytes()).hexdigest() != expected["sha256"]:
            raise changed_file(self.root.parent, f"{ZARR}/{key}")
        return buffer if byte_range is None else await super().get(key, prototype, byte_range)
