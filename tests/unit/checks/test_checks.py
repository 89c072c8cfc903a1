"""A check is added by one file: catalog, schema, evaluation and the files of an audit follow from it."""

import inspect
import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from lfm_tasks.checks import BaselineCheck, Check, ZooCheck, check_classes, classes_by_key
from lfm_tasks.checks.lineage import NearDuplicate

PACKAGE = Path(__file__).parents[3] / "lfm_tasks"

TOY = '''
"""A check of a test."""

from pydantic import Field

from lfm_tasks.checks import Measurement, PublishedAtlas, Skipped, ZooCheck


class TooManyModels(ZooCheck):
    """More models than the test likes."""

    at_most: int = Field(default=100, ge=1, description="models of the atlas")
    enforced: bool = False

    def evaluate(self, current: PublishedAtlas) -> Measurement | Skipped:
        """Return the number of models."""
        n_models = len(current.models)
        findings = [{"model": name} for name in sorted(current.models)]
        return Measurement(n_models > self.at_most, n_models, self.at_most, f"{n_models} models", findings)
'''

# What an audit of the atlas in a file does, without a run.
USE = """
import json, pickle, sys
from pathlib import Path
from types import SimpleNamespace
from lfm_tasks.audit.files import write_audit
from lfm_tasks.audit.stage import Audit, audit_facts, evaluate
from lfm_tasks.catalog import catalog_schema, read_catalog

folder = Path(sys.argv[1])
checks = read_catalog(folder / "data_catalog.yaml", {}).audit.checks
current = pickle.loads((folder / "atlas.pickle").read_bytes())
results = tuple(evaluate(checks, current, None))
run = SimpleNamespace(stage_counts=SimpleNamespace(computed={}, reused={}))
facts = audit_facts(run, current, Audit(results, current.key, None, False, folder))
write_audit(folder, facts, results, lambda facts: "")
print(json.dumps([catalog_schema()["$defs"]["TooManyModels"]["properties"]["at_most"], checks.too_many_models.at_most]))
"""

CATALOG = """\
version: 1
datasets: {probe: {ids: positional}}
models: {a: {activations: {path: a.npy, dataset: probe}}}
audit:
  checks:
    too_many_models: {at_most: %s, enforced: true}
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the package and add the toy check, one file."""
    tree = tmp_path_factory.mktemp("tree")
    shutil.copytree(PACKAGE, tree / "lfm_tasks", ignore=shutil.ignore_patterns("__pycache__", "*.onnx"))
    (tree / "lfm_tasks" / "checks" / "toy.py").write_text(TOY, encoding="utf-8")
    return tree


def python(tree: Path, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=tree, capture_output=True, text=True, timeout=120, check=False
    )


def test_check_in_one_file__reaches_catalog_schema_evaluation_and_files(
    tree: Path, tmp_path: Path, publish_atlas: Any, similarities: Any
) -> None:
    (tmp_path / "data_catalog.yaml").write_text(CATALOG % 1)
    atlas = publish_atlas(similarities(2), names="ab")
    atlas.summary["counts"].update(models=2, spaces=2, pairs=1)
    (tmp_path / "atlas.pickle").write_bytes(pickle.dumps(atlas))

    done = python(tree, USE, str(tmp_path))

    assert done.returncode == 0, done.stderr
    schema, at_most = json.loads(done.stdout)
    assert at_most == 1
    assert schema["minimum"] == 1
    assert schema["description"] == "models of the atlas"
    facts = json.loads((tmp_path / "audit.json").read_text())
    [check] = [check for check in facts["checks"] if check["name"] == "too_many_models"]
    assert (check["status"], check["observed"], check["threshold"]) == ("fail", 2, 1)
    assert check["findings"] == [{"model": "a"}, {"model": "b"}]
    assert "too_many_models" in facts["sentence"]
    assert "2 models" in (tmp_path / "audit.html").read_text()
    suite = ElementTree.parse(tmp_path / "audit.junit.xml").getroot()  # noqa: S314 - our own file
    assert "too_many_models" in [case.get("name") for case in suite if case.find("failure") is not None]


def test_mistake_in_its_section__is_reported_with_its_line(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "data_catalog.yaml").write_text(CATALOG.replace("at_most", "at_mots") % 1)

    done = python(tree, USE, str(tmp_path))

    assert ":6: audit.checks.too_many_models.at_mots: unknown key; did you mean 'at_most'?" in done.stderr


def test_checks__are_in_the_order_of_files_and_classes() -> None:
    places = [(check.__module__, inspect.getsourcelines(check)[1]) for check in check_classes().values()]
    assert places == sorted(places)
    assert {"near_duplicate", "license", "drift", "stale_baseline"} <= check_classes().keys()
    assert check_classes()["near_duplicate"] is NearDuplicate


class WithoutDefault(ZooCheck):
    """A check with a setting that every catalog would have to name."""

    at_most: int


class Neither(Check):
    """A check that nobody knows how to evaluate."""


class Fine(BaselineCheck):
    """A check."""


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([WithoutDefault], r"WithoutDefault: got no default of at_most, expected one"),
        ([Neither], r"Neither: got a Check, expected a class derived from ZooCheck or BaselineCheck"),
        ([Fine, Fine], r"Fine: got two checks of the key fine, expected one. Rename the class"),
    ],
)
def test_class_that_is_no_whole_check__is_refused(classes: list[type[Check]], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        classes_by_key(classes)
