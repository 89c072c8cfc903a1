"""The Prefect flow of a run, and the artifact that it leaves."""

import asyncio
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.exceptions import PrefectHTTPStatusError
from prefect.testing.utilities import prefect_test_harness

from lfm_atlas import artifacts
from lfm_atlas.artifacts import StageProgress, artifact_key, write_artifacts
from lfm_atlas.atlas import atlas_flow
from lfm_atlas.pipeline import Outcome


@pytest.fixture(scope="module")
def harness() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=120):
        yield


async def _artifacts(key: str) -> list[Any]:
    async with get_client() as client:
        return await client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])))


def test_run__leaves_an_artifact_under_the_key_of_the_atlas(
    harness: None, tmp_path: Path, related_spaces: Any, write_zoo: Callable[..., Path]
) -> None:
    folder = write_zoo(tmp_path / "Zoo of_mine", related_spaces(3))
    for _ in range(2):
        atlas_flow()(str(folder / "data_catalog.yaml"))

    first, second = sorted(
        asyncio.run(_artifacts(artifact_key(folder / "atlas"))), key=lambda artifact: artifact.created
    )
    assert first.type == second.type == "markdown"
    assert "bases 6 new, 0 kept" in first.data
    assert "bases 0 new, 6 kept" in second.data
    for page in (first.data, second.data):
        assert len(page.encode()) < 200_000
        assert "| spaces | ok | 6 of 3 models; 0 failed |" in page
        assert page.count('<img alt="models by models on probe') == 1


def test_key__is_stable_told_apart_and_allowed() -> None:
    key = artifact_key(Path("/data/Zoo of_mine/atlas"))

    assert key == artifact_key(Path("/data/Zoo of_mine/atlas"))
    assert key.startswith("lfm-atlas-zoo-of-mine-atlas-")
    assert key != artifact_key(Path("/other/Zoo of_mine/atlas"))
    assert re.fullmatch(r"[a-z0-9-]+", artifact_key(Path("/é/" + "x" * 300)))


def test_refusal_of_the_server__is_said_and_costs_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    request = httpx.Request("POST", "http://127.0.0.1/api/artifacts")
    pages = []

    def refuse(page: str, **_: object) -> None:
        pages.append(page)
        raise PrefectHTTPStatusError("413 too large", request=request, response=httpx.Response(413, request=request))

    monkeypatch.setattr(artifacts, "create_markdown_artifact", refuse)

    write_artifacts(Path("nowhere"), Outcome(0, (), (), False, {"bases": 1}, {"bases": 2}, "1 spaces are not computed"))

    assert pages == ["bases 1 new, 2 kept.\n\n1 spaces are not computed."]
    assert "refused the artifact of this run (413 too large" in capsys.readouterr().err


def test_bars__are_of_stages_that_take_time_and_end_with_the_first_refusal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    request = httpx.Request("POST", "http://127.0.0.1/api/artifacts")
    reported: list[tuple[str, int, int]] = []
    bars: list[tuple[float, str]] = []

    def refuse(*_: object, **__: object) -> None:
        raise PrefectHTTPStatusError("413 too large", request=request, response=httpx.Response(413, request=request))

    monkeypatch.setattr(
        artifacts, "create_progress_artifact", lambda percent, description: bars.append((percent, description)) or "id"
    )
    monkeypatch.setattr(
        artifacts, "update_progress_artifact", lambda _, percent, description: bars.append((percent, description))
    )
    progress = StageProgress(lambda *report: reported.append(report))
    for report in [("bases", 0, 4), ("bases", 1, 4), ("bases", 4, 4), ("scores", 0, 0), ("maps", 3, 3)]:
        progress(*report)
    assert len(reported) == 5
    assert bars == [(0.0, "bases: 0 of 4"), (100.0, "bases: 4 of 4")]

    monkeypatch.setattr(artifacts, "create_progress_artifact", refuse)
    for report in [("late", 1, 2), ("later", 1, 2)]:
        progress(*report)
    assert capsys.readouterr().err.count("refused a bar of this run (413 too large") == 1
