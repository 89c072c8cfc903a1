"""``lfm-atlas audit`` as a whole, without Prefect: files, exit codes, the baseline, what is computed."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from ruamel.yaml import YAML

from lfm_atlas.cli.main import app
from lfm_tasks.runtime import session
from lfm_tasks.spectral.bases.eigenbasis import spectral_basis
from lfm_tasks.stages.bases import job as space_bases
from lfm_tasks.stages.publish import assemble
from lfm_tasks.stores.atlas.files import published_key
from lfm_tasks.stores.units import store

# Small zoos break limits that are made for real ones.
SMALL_ZOO = {"quality": {"min_points": 100, "min_reliability": -1}, "near_duplicate": None}


@pytest.fixture
def write(write_zoo: Callable[..., Path]) -> Callable[..., Path]:
    """Write a zoo with an audit section and what meta says of its models."""

    def zoo(folder: Path, models: Any, meta: Mapping[str, Any] | None = None, **audit: Any) -> Path:
        write_zoo(folder, models)
        path = folder / "data_catalog.yaml"
        content = YAML(typ="safe").load(path.read_text())
        content["audit"] = {"checks": SMALL_ZOO} | audit
        for name, facts in (meta or {}).items():
            content["models"][name]["meta"] = facts
        with path.open("w") as file:
            YAML().dump(content, file)
        return folder

    return zoo


def audit(folder: Path, *options: str) -> int:
    code: int = app(
        ["audit", str(folder / "data_catalog.yaml"), "--no-prefect", "--no-dask", *options],
        result_action="return_value",
    )
    return code


def facts(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "audits" / "audit.json").read_text())
    return content


def statuses(folder: Path) -> dict[str, str]:
    return {check["name"]: check["status"] for check in facts(folder)["checks"]}


def changed(models: Any) -> Any:
    layers, ids = models["model0"]
    return {**models, "model0": ({name: rows[:, ::-1] ** 3 for name, rows in layers.items()}, ids)}


def test_first_audit__has_no_baseline_and_becomes_it(tmp_path: Path, related_spaces: Any, write: Any) -> None:
    folder = write(tmp_path, related_spaces(3))

    assert audit(folder) == 0

    audited = facts(folder)
    assert (audited["verdict"], audited["baseline"], audited["promoted"]) == ("pass", None, True)
    assert audited["schema_version"] == 1
    assert "evidence of lineage, not proof" in audited["note"]
    assert published_key(folder / "baseline") == published_key(folder / "atlas") == audited["atlas"]
    assert statuses(folder)["drift"] == "skipped"
    assert statuses(folder)["control"] == "pass"


def test_second_audit__of_an_unchanged_zoo_computes_nothing_and_passes(
    tmp_path: Path, related_spaces: Any, write: Any
) -> None:
    folder = write(tmp_path, related_spaces(3))
    audit(folder)

    assert audit(folder) == 0

    audited = facts(folder)
    assert not any(audited["computed"].values())
    assert audited["baseline"] == audited["atlas"]
    assert statuses(folder)["drift"] == "pass"
    history = [json.loads(line) for line in (folder / "audits" / "history.jsonl").read_text().splitlines()]
    assert [line["promoted"] for line in history] == [True, False]
    assert history[1]["checks"]["drift"] == {"status": "pass", "observed": 0.0}


def test_changed_model__costs_its_own_spaces_and_pairs_breaks_limits_and_is_not_promoted(
    tmp_path: Path, related_spaces: Any, write: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    models = related_spaces(4)
    folder = write(tmp_path, models)
    audit(folder)
    before = published_key(folder / "baseline")
    write(folder, changed(models))

    assert audit(folder) == 3

    # Two layers of eight changed: each with the six others, with itself, and the two with each other.
    assert (
        facts(folder)["computed"].items() >= {"activations": 2, "bases": 2, "scores": 2 * 6 + 2 + 1, "atlas": 1}.items()
    )
    assert {name for name, status in statuses(folder).items() if status == "fail"} == {
        "drift", "changed_weights_same_version",
    }  # fmt: skip
    assert published_key(folder / "baseline") == before
    printed = capsys.readouterr()
    assert "fail     changed_weights_same_version: other activations under the same version: model0" in printed.err
    assert "the baseline stays as it is" in printed.out

    assert audit(folder, "--promote") == 3
    assert published_key(folder / "baseline") == published_key(folder / "atlas") != before
    assert audit(folder) == 0


def test_changed_model__under_a_new_version_passes_and_becomes_the_baseline(
    tmp_path: Path, related_spaces: Any, write: Any
) -> None:
    models = related_spaces(3)
    audit(write(tmp_path, models, {"model0": {"version": "1"}}))

    assert audit(write(tmp_path, changed(models), {"model0": {"version": "2"}})) == 0
    assert facts(tmp_path)["promoted"] is True


def test_new_model__costs_its_own_spaces_and_pairs(tmp_path: Path, related_spaces: Any, write: Any) -> None:
    models = related_spaces(4)
    audit(write(tmp_path, {name: models[name] for name in ("model0", "model1", "model2")}))

    assert audit(write(tmp_path, models)) == 0
    assert (
        facts(tmp_path)["computed"].items()
        >= {"activations": 2, "bases": 2, "scores": 2 * 6 + 2 + 1, "atlas": 1}.items()
    )


def test_model_that_is_gone__fails(tmp_path: Path, related_spaces: Any, write: Any) -> None:
    models = related_spaces(3)
    audit(write(tmp_path, models))
    del models["model1"]

    assert audit(write(tmp_path, models)) == 3
    assert statuses(tmp_path)["missing"] == "fail"


def test_promote_never__leaves_no_baseline(tmp_path: Path, related_spaces: Any, write: Any) -> None:
    folder = write(tmp_path, related_spaces(2), promote="never")

    assert audit(folder) == 0
    assert not (folder / "baseline").exists()
    assert audit(folder, "--promote") == 0
    assert published_key(folder / "baseline") is not None


def test_damaged_baseline__is_an_error_that_promoting_mends(tmp_path: Path, related_spaces: Any, write: Any) -> None:
    folder = write(tmp_path, related_spaces(2))
    audit(folder)
    (folder / "baseline" / "summary.json").write_text("{}")

    assert audit(folder) == 3
    assert statuses(folder)["drift"] == "error"
    [drift] = [check for check in facts(folder)["checks"] if check["name"] == "drift"]
    assert "Restore it, or audit with --promote" in drift["message"]
    audit(folder, "--promote")
    assert audit(folder) == 0


def test_folder_that_is_no_baseline__is_left_alone(
    tmp_path: Path, related_spaces: Any, write: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path, related_spaces(2))
    (folder / "baseline").mkdir()
    (folder / "baseline" / "mine.txt").write_text("mine")

    with pytest.raises(SystemExit, match="2"):
        audit(folder)
    assert "baseline: got a folder with mine.txt and no manifest.json of an atlas" in capsys.readouterr().err
    assert not (folder / "atlas").exists()
    assert (folder / "baseline" / "mine.txt").read_text() == "mine"


def test_space_that_failed__breaks_quality(tmp_path: Path, related_spaces: Any, write: Any) -> None:
    models = related_spaces(2)
    models["model1"][0]["layer1"][0, 0] = float("nan")

    assert audit(write(tmp_path, models)) == 3
    assert statuses(tmp_path)["quality"] == "fail"


def test_junit__has_a_case_for_each_check(tmp_path: Path, related_spaces: Any, write: Any) -> None:
    models = related_spaces(3)
    folder = write(tmp_path, models)
    audit(folder)
    audit(write(folder, changed(models)))

    suite = ElementTree.parse(folder / "audits" / "audit.junit.xml").getroot()  # noqa: S314 - our own file

    assert (suite.tag, suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("testsuite", "10", "2", "0")
    failed = {case.get("name") for case in suite if case.find("failure") is not None}
    assert failed == {"drift", "changed_weights_same_version"}


def test_page__escapes_names_and_asks_nothing_of_any_network(tmp_path: Path, related_spaces: Any, write: Any) -> None:
    models = related_spaces(2)
    folder = write(tmp_path, models, {"model0": {"license": "<script>alert(1)</script>"}}, checks=SMALL_ZOO | {
        "license": {"allow": ["mit"]}
    })  # fmt: skip
    audit(folder)

    page = (folder / "audits" / "audit.html").read_text()

    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "http" not in page.replace("http-equiv", "")
    assert "evidence of lineage, not proof" in page


def test_report__has_the_audit_as_a_section_and_names_stay_text(
    tmp_path: Path, related_spaces: Any, write: Any
) -> None:
    meta, checks = {"model0": {"license": "<script>alert(1)</script>"}}, SMALL_ZOO | {"license": {"allow": ["mit"]}}
    folder = write(tmp_path, related_spaces(2), meta, checks=checks)
    audit(folder)
    audit(folder)

    page = (folder / "audits" / "report.html").read_text()

    assert page.count('<h2 id="audit">Audit: warn</h2>') + page.count('<h2 id="audit">Audit: fail</h2>') == 1
    assert '<a href="#audit">Audit</a>' in page
    assert '<h2 id="findings">' in page
    assert "<script>alert" not in page
    past = page[page.index('<h3 id="audit-history">') : page.index('<h3 id="audit-made">')]
    assert past.count('<th scope="col" title=') == 2
    # The page of the atlas depends on nothing but the atlas.
    assert 'id="audit"' not in (folder / "atlas" / "report.html").read_text()


def test_torn_history__is_told_before_anything_is_computed(
    tmp_path: Path, related_spaces: Any, write: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path, related_spaces(2))
    (folder / "audits").mkdir()
    (folder / "audits" / "history.jsonl").write_text('{"time": "20')

    with pytest.raises(SystemExit, match="2"):
        audit(folder)
    assert "history.jsonl:1: got a line that no audit wrote" in capsys.readouterr().err
    assert not (folder / "atlas").exists()


def test_control__sees_a_pipeline_that_changed(
    tmp_path: Path, related_spaces: Any, write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path, related_spaces(2))
    audit(folder)

    def other(graph: Any, n_eigenpairs: int) -> Any:
        basis = spectral_basis(graph, n_eigenpairs)
        turned = np.roll(basis.eigenvectors, 1, axis=0)
        return type(basis)(basis.eigenvalues, turned, basis.next_eigenvalue)

    monkeypatch.setattr(space_bases, "spectral_basis", other)

    assert audit(folder) == 3
    [control] = [check for check in facts(folder)["checks"] if check["name"] == "control"]
    assert control["status"] == "fail"
    assert "the pipeline has changed" in control["message"]


def test_baseline_of_another_convention__is_refused_and_all_is_computed_anew(
    tmp_path: Path,
    related_spaces: Any,
    write: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = write(tmp_path, related_spaces(3))
    with monkeypatch.context() as patched:
        for module in (store, assemble, session):
            patched.setattr(module, "CONVENTION", "5")
        assert audit(folder) == 0
    before = published_key(folder / "baseline")
    capsys.readouterr()

    assert audit(folder) == 3

    told = capsys.readouterr()
    assert f"published atlas: convention 5, this version: {store.CONVENTION}. Everything is computed again." in told.err
    audited = facts(folder)
    assert audited["reused"]["bases"] == 0
    refused = {check["name"]: check["message"] for check in audited["checks"] if check["status"] == "error"}
    assert set(refused) == {"drift", "changed_weights_same_version"}
    assert set(refused.values()) == {f"baseline: convention 5, atlas: {store.CONVENTION}. Promote a new baseline."}
    assert published_key(folder / "baseline") == before
    with pytest.raises(SystemExit, match="2"):
        app(["diff", str(folder / "baseline"), str(folder / "atlas")], result_action="return_value")
    assert (
        f"base: convention 5, candidate: {store.CONVENTION}. Run the older one again with this version."
        in capsys.readouterr().err
    )
    assert audit(folder, "--promote") == 3
    assert audit(folder) == 0
