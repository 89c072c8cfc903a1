"""An audit without an atlas says what to do."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from lfm_tasks.audit import audit_atlas
from lfm_tasks.catalog.sections import AuditConfig


def test_audit_without_an_atlas__is_refused(tmp_path: Any) -> None:
    catalog = SimpleNamespace(audit=AuditConfig(), root=tmp_path)
    run = SimpleNamespace(report_progress=lambda *_: None, catalog=catalog, atlas_folder=tmp_path / "atlas")

    with pytest.raises(FileNotFoundError, match=r"got no atlas to audit. Run lfm-atlas run"):
        audit_atlas(cast(Any, run))
