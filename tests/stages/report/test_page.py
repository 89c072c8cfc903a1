"""The page: whole, safe, the same every time; with --browser also as Chromium sees it."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from lfm_tasks.stages.report import render_report
from lfm_tasks.stages.report.facts import packed
from lfm_tasks.stages.report.matrices import best_matches, dendrogram, model_similarity
from lfm_tasks.stores.atlas_files import read_atlas, read_json


@pytest.fixture(scope="module")
def page(zoo_folder_built: Path) -> str:
    return (zoo_folder_built / "atlas" / "report.html").read_text()


def test_page__is_small_and_the_same_every_time(zoo_folder_built: Path, page: str) -> None:
    atlas = read_atlas(zoo_folder_built / "atlas")
    summary = read_json(zoo_folder_built / "atlas" / "summary.json")

    assert render_report(atlas, summary) == render_report(atlas, summary) == page
    assert len(page.encode()) < 2_500_000


def test_page__asks_nothing_of_any_network(page: str) -> None:
    shell = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)

    assert not re.search(r"(src|href)\s*=\s*[\"'](?!#)", shell)
    assert "url(" not in shell
    assert "@import" not in shell
    assert "default-src 'none'" in page


def test_page__allows_its_own_scripts_and_no_others(page: str) -> None:
    allowed = set(re.findall(r"'sha256-([^']+)'", page.split("<title>")[0]))
    scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    hashes = {base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts}

    assert len(scripts) == 2
    assert hashes == allowed
    assert "unsafe-eval" not in page.split("<title>")[0]


def test_page__has_a_verdict_for_every_model(page: str) -> None:
    for model in ("mlp_s0", "mlp_untrained", "cnn_s0", "tanh_s0"):
        assert f'<th scope="row">{model}</th>' in page
    assert "<strong>mlp_s0</strong> and <strong>mlp_s0_permuted</strong> are the same at every layer" in page
    assert re.search(r'mlp_untrained</th>.*?class="verdict apart"', page)


def test_names__cannot_break_out_of_the_page(zoo_folder_built: Path) -> None:
    attack = "</script><img src=x onerror=alert(1)>\u2028"
    atlas = read_atlas(zoo_folder_built / "atlas")
    summary = read_json(zoo_folder_built / "atlas" / "summary.json")
    layers = np.array([attack] * atlas.sizes["source"], dtype=object)
    models = np.array([attack + name for name in atlas["source_model"].values], dtype=object)
    attacked = atlas.assign_coords(source_layer=("source", layers), source_model=("source", models))
    failure = dict.fromkeys(("dataset", "model", "layer", "stage", "reason", "message"), attack)

    page = render_report(attacked, summary | {"failures": [failure], "title": attack})

    assert "<img" not in page
    assert page.count("</script>") == 3


@pytest.mark.parametrize("n_models", [0, 1, 2])
def test_page__of_few_models_is_drawn(
    n_models: int, tmp_path: Path, related_spaces: object, write_zoo: object, build: object
) -> None:
    models = related_spaces(max(n_models, 1))  # type: ignore[operator]
    folder = write_zoo(tmp_path, models)  # type: ignore[operator]
    if n_models == 0:
        (folder / "model0.npz").unlink()
    build(folder)  # type: ignore[operator]

    page = (tmp_path / "atlas" / "report.html").read_text()

    assert ("nothing to compare it with" in page) == (n_models < 2)


def test_packed__holds_values_to_a_thirty_thousandth_of_the_largest() -> None:
    values = np.array([[1.0, -0.25], [np.nan, 0.123456]])

    stored = packed(values)

    steps = np.frombuffer(base64.b64decode(stored["steps"]), dtype="<i2").reshape(2, 2)
    assert steps[1, 0] == -32768
    restored = np.where(steps == -32768, np.nan, steps * stored["unit"])
    np.testing.assert_allclose(restored, values, atol=1 / 32767)


def test_model_similarity__averages_best_matches_of_both_directions() -> None:
    values = np.array(
        [
            [1, 0.1, 0.8, 0.2, 0.3],
            [0.1, 1, 0.5, 0.4, 0.6],
            [0.8, 0.5, 1, 0, 0],
            [0.2, 0.4, 0, 1, 0],
            [0.3, 0.6, 0, 0, 1],
        ]
    )

    similarity = model_similarity(values, [[0, 1], [2, 3, 4]])

    # From the first: .8 and .6; from the second: .8, .4, .6.
    np.testing.assert_allclose(similarity, [[1, (0.7 + 0.6) / 2], [(0.7 + 0.6) / 2, 1]])


def test_best_matches__are_not_misled_by_a_layer_that_is_like_everything() -> None:
    block = np.array([[0.6, 0.7, 0.3], [0.3, 0.8, 0.4], [0.2, 0.7, 0.6]])
    values = np.block([[np.eye(3), block], [block.T, np.eye(3)]])

    matches = best_matches(values, [[0, 1, 2], [3, 4, 5]])

    assert block.argmax(axis=1).tolist() == [1, 1, 1]
    assert matches[:3, 1].tolist() == [0, 1, 2]


def test_dendrogram__puts_alike_models_together() -> None:
    similarity = np.array([[1, 0.1, 0.9, 0.2], [0.1, 1, 0.2, 0.8], [0.9, 0.2, 1, 0.1], [0.2, 0.8, 0.1, 1]])

    order, across, along = dendrogram(similarity)

    assert {frozenset(order[:2]), frozenset(order[2:])} == {frozenset((0, 2)), frozenset((1, 3))}
    assert len(across) == len(along) == 3
    assert max(max(line) for line in across) == 1


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_browser__draws_the_page_without_a_complaint(zoo_folder_built: Path, tmp_path: Path, scheme: str) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "found no Chromium, needs one on the PATH: install it, or leave --browser out"
    address = (zoo_folder_built / "atlas" / "report.html").as_uri() + "#source=mlp_s1&target=mlp_s2&measure=lfm"
    seen = subprocess.run(
        [
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
            "--virtual-time-budget=10000", f"--user-data-dir={tmp_path}", "--dump-dom",
            f"--blink-settings=preferredColorScheme={int(scheme == 'light')}", address,
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    complaints = [line for line in seen.stderr.splitlines() if "CONSOLE" in line and "[bokeh" not in line]

    assert complaints == []
    assert 'data-ready="true"' in seen.stdout
    assert '<option value="0">lfm</option>' in seen.stdout
    table = re.search(r'id="table-layers">(.*?)</table>', seen.stdout, flags=re.DOTALL)
    assert table
    assert "mlp_s1 → mlp_s2" in table[1]
    shown = [
        [float(cell) for cell in re.findall(r"<td[^>]*>(-?\.\d+|1\.000)", row)] for row in table[1].split("<tr>")[2:]
    ]
    atlas = read_atlas(zoo_folder_built / "atlas")["calibrated"].sel(dataset="digits", measure="lfm")
    layers = ("relu1", "relu2", "relu3", "relu4", "logits")
    stored = atlas.sel(source=[f"mlp_s1/{x}" for x in layers], target=[f"mlp_s2/{x}" for x in layers])
    np.testing.assert_allclose(shown, stored.values, atol=0.0006)


def test_facts__travel_as_json(page: str) -> None:
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, flags=re.DOTALL)
    assert data
    facts = json.loads(data[1])["facts"]

    assert [dataset["name"] for dataset in facts["datasets"]] == ["digits"]
    assert len(facts["views"][0]) == 2
