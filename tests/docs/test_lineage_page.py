"""docs/lineage.md: its levels and limits are the program's, its Python runs."""

import re
import shutil
from pathlib import Path

import pytest

from lfm_tasks.lineage.levels import COPY_AT_LEAST, FAMILY_AT_LEAST, RELATED_AT_LEAST, Level

PAGE = (Path(__file__).parents[2] / "docs/lineage.md").read_text(encoding="utf-8")


def test_table__has_every_level_in_order_with_its_limit() -> None:
    rows = re.findall(
        r"^\| \*\*(copy|related|same family|beyond chance|unrelated|cannot tell)\*\* \| (.*) \|$", PAGE, re.M
    )

    assert [name for name, _ in rows] == [str(level) for level in Level]
    meaning = dict(rows)
    assert f"{COPY_AT_LEAST:.2f} or more".lstrip("0") in meaning["copy"]
    assert f"{RELATED_AT_LEAST:.2f} or more".lstrip("0") in meaning["related"]
    assert f"{FAMILY_AT_LEAST} robust" in PAGE


def test_python__runs(zoo_folder_built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [example] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    shutil.copytree(zoo_folder_built / "atlas", tmp_path / "atlas")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}

    exec(compile(example, "docs/lineage.md", "exec"), names)  # noqa: S102 - our own page

    related = names["related"]
    assert isinstance(related, list)
    assert {frozenset((one.source, one.target)) for one in related} == {
        frozenset(pair)
        for pair in (
            ("mlp_s0", "mlp_s0_permuted"), ("mlp_s0", "mlp_s0_finetuned"), ("mlp_s0_finetuned", "mlp_s0_permuted")
        )
    }  # fmt: skip
