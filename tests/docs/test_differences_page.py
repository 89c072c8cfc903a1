"""docs/differences.md: its catalog and code run on the shipped zoo and print what stands there."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lfm_atlas.pipeline import Outcome

PAGE = (Path(__file__).parents[2] / "docs/differences.md").read_text(encoding="utf-8")


def test_page__prints_what_it_shows(
    zoo_folder_built: Path,
    tmp_path: Path,
    build: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "zoo"
    shutil.copytree(zoo_folder_built, folder)
    [embeddings] = re.findall(r"```yaml\natlas:\n(.*?)```", PAGE, re.DOTALL)
    catalog = folder / "data_catalog.yaml"
    catalog.write_text(catalog.read_text().replace("\natlas:\n", f"\natlas:\n{embeddings}"))
    outcome = build(folder)
    assert (outcome.computed["embeddings"], outcome.computed["probes"]) == (4, 16)
    monkeypatch.chdir(folder)

    tables, picture = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    capsys.readouterr()
    names: dict[str, object] = {}
    exec(tables, names)  # noqa: S102 the page's own code
    assert capsys.readouterr().out == re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)[0]
    exec(picture, names)  # noqa: S102 the page's own code
    assert (folder / "distortion.svg").read_text().count("<text ") == 797
