"""The page as text: whole, safe, the same every time; each view is there when the atlas has what it shows."""

import base64
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lfm_tasks.report import render_report
from lfm_tasks.stores.atlas.files import read_atlas, read_groups, read_json


@pytest.fixture(scope="module")
def page(zoo_folder_built: Path) -> str:
    return (zoo_folder_built / "atlas" / "report.html").read_text()


def test_page__is_small_and_the_same_every_time(zoo_folder_built: Path, page: str) -> None:
    atlas = read_atlas(zoo_folder_built / "atlas")
    summary = read_json(zoo_folder_built / "atlas" / "summary.json")

    groups = read_groups(zoo_folder_built / "atlas")

    assert render_report(atlas, summary, groups) == render_report(atlas, summary, groups) == page
    assert len(page.encode()) < 500_000


def test_page__asks_nothing_of_any_network(page: str) -> None:
    shell = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)

    assert not re.search(r"(src|href)\s*=\s*[\"'](?!#)", shell)
    assert "url(" not in shell
    assert "@import" not in shell
    assert "default-src 'none'" in page


def test_page__allows_its_own_scripts_and_no_others(page: str) -> None:
    allowed = set(re.findall(r"'sha256-([^']+)'", page.split("<title>")[0]))
    scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    styles = re.findall(r"<style>(.*?)</style>", page, flags=re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts + styles]

    assert len(scripts) == len(styles) == 1
    assert set(hashes) == allowed
    assert "unsafe" not in page.split("<title>")[0]
    assert "style=" not in re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)


def test_page__has_a_finding_for_every_model(page: str) -> None:
    for model in ("mlp_s0", "mlp_untrained", "cnn_s0", "tanh_s0"):
        assert f'<th scope="row">{model}</th>' in page
    answer = re.sub(r"<[^>]+>|\s+", " ", page.split('id="answer"')[1].split("</section>")[0])
    answer = re.sub(r" +", " ", answer)
    assert (
        "mlp_s0_finetuned (related) and mlp_s0_permuted (a copy, the same at every layer) come from mlp_s0 " in answer
    )
    assert re.search(r"mlp_untrained stands apart: 0\.5\d alike in the median, others 0\.7", answer)
    assert re.search(r'mlp_s0_finetuned</th>.*?class="badge related"', page)
    assert re.search(r'mlp_untrained</th>.*?class="badge beyond-chance"', page)


def test_margins__of_equals_are_not_below_zero(page: str) -> None:
    assert "-0.000" not in page


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
    assert page.count("</script>") == 2


PAYLOADS = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    '" autofocus onfocus=alert(1) x="',
    "<iframe src=javascript:alert(1)>",
    "<a href=javascript:alert(1)>x</a>",
    "<!--<script>alert(1)//-->",
    "<!--><script>alert(1)</script>",
    "]]><script>alert(1)</script>",
    "</title><script>alert(1)</script>",
    "</style><script>alert(1)</script>",
    "<body onload=alert(1)>",
    "<math><mi xlink:href=javascript:alert(1)>",
    "<template><script>alert(1)</script></template>",
    "<base href=//evil/>",
    "<meta http-equiv=refresh content=0>",
    "{{7*7}}{% raw %}",
    "${alert(1)}",
    "\u2028alert(1)\u2029",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "\x00<script>",
    "\ud7ff<embed src=x>",
]


def attacked_page(made_atlas: Callable[..., Any], with_sections: Callable[..., Any]) -> str:
    """Return a page with every payload as model, layer, point, label, class of meta, title, failure and message."""
    atlas, summary = made_atlas(len(PAYLOADS), 1)
    atlas, groups = with_sections(atlas, prefix="<img src=x onerror=alert(1)>")
    layers = np.array(PAYLOADS, dtype=object)
    attacked = atlas.assign_coords(source_layer=("source", layers), source_model=("source", layers))
    failures = [dict.fromkeys(("dataset", "model", "layer", "stage", "reason", "message"), text) for text in PAYLOADS]
    models = [{"name": text, "meta": {text: text}} for text in PAYLOADS]
    texts = {
        "failures": failures,
        "title": "".join(PAYLOADS),
        "models": models,
        "settings": {text: text for text in PAYLOADS},
    }
    return render_report(attacked, summary | texts, groups)


def test_payloads__stay_text(made_atlas: Callable[..., Any], with_sections: Callable[..., Any]) -> None:
    page = attacked_page(made_atlas, with_sections)

    assert len(PAYLOADS) >= 20
    assert page.count("<script") == page.count("</script>") == 2
    for tag in ("img", "svg onload", "iframe", "embed", "math", "base", "meta http-equiv=r", "body onload", "template"):
        assert f"<{tag}" not in page


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


def test_facts__travel_as_json(page: str) -> None:
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, flags=re.DOTALL)
    assert data
    facts = json.loads(data[1])

    assert [dataset["name"] for dataset in facts["datasets"]] == ["digits"]
    assert len(facts["views"][0]) == 2


VIEWS = {"maps": 'id="functional"', "transfers": 'id="transfers"', "embeddings": 'id="embeddings"'}


@pytest.mark.parametrize("absent", [None, *VIEWS])
def test_view__is_absent_where_its_group_is(
    made_atlas: Callable[..., Any], with_sections: Callable[..., Any], absent: str | None
) -> None:
    atlas, summary = made_atlas(3, 2, datasets=("probe", "other"))
    atlas, groups = with_sections(atlas)
    kept = {path: group for path, group in groups.items() if not path.startswith(f"{absent}/")}

    page = render_report(atlas, summary, kept)

    assert {view: sign in page for view, sign in VIEWS.items()} == {view: view != absent for view in VIEWS}


def test_cycle_residuals__are_explained_where_the_atlas_has_them(
    made_atlas: Callable[..., Any], with_sections: Callable[..., Any]
) -> None:
    atlas, summary = made_atlas(3, 2)

    assert "<dfn>Cycle residual" not in render_report(atlas, summary)
    assert "<dfn>Cycle residual" in render_report(with_sections(atlas)[0], summary)
