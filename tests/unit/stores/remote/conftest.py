"""An object store in memory, in the place of S3."""

import pytest

from lfm_tasks.stores.remote import objects
from tests.unit.stores.remote.object_store import FakeFileSystem


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> FakeFileSystem:
    """Give the object store that all of this process see."""
    files = FakeFileSystem()
    monkeypatch.setattr(objects, "_file_system", lambda: files)
    return files
