"""docs/audit.md: its catalog is one, its defaults are the program's, its Python runs."""

import json
import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from lfm_tasks.catalog.sections import AuditConfig, Checks

PAGE = (Path(__file__).parents[2] / "docs/audit.md").read_text(encoding="utf-8")


def test_example__is_a_section_of_a_catalog() -> None:
    [example] = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)

    audit = AuditConfig.model_validate(YAML(typ="safe").load(example)["audit"])

    assert audit.checks.stale_baseline is None
    assert audit.checks.undeclared_lineage is not None
    assert audit.checks.undeclared_lineage.at_least == 0.999


@pytest.mark.parametrize("name", list(Checks.model_fields))
def test_table__has_every_check_and_says_whether_it_is_enforced(name: str) -> None:
    [row] = re.findall(rf"^\| `{name}` \|.*$", PAGE, re.MULTILINE)

    assert row.endswith("| enforced |" if getattr(Checks(), name).enforced else "| warning |")
    for number in re.findall(r"`(?:at_least|below)` ([\d.]+)", row):
        assert float(number) in getattr(Checks(), name).model_dump().values()


def test_python__reads_what_an_audit_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [example] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "audits").mkdir()
    checks = [{"name": "drift", "status": "fail"}, {"name": "missing", "status": "pass"}]
    (tmp_path / "audits" / "audit.json").write_text(json.dumps({"checks": checks}))
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}

    exec(compile(example, "docs/audit.md", "exec"), names)  # noqa: S102 - our own page

    assert names["broken"] == ["drift"]
