"""The section ``audit``: strict like every other, its checks on unless they are switched off."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError
from ruamel.yaml import YAML

from lfm_tasks.catalog import Catalog, CatalogError, catalog_schema, read_catalog
from lfm_tasks.catalog.sections import Checks
from lfm_tasks.config import AtlasConfig


def content(audit: Any) -> dict[str, Any]:
    model = {"activations": {"path": "a.npy", "dataset": "probe"}}
    return {"version": 1, "datasets": {"probe": {"ids": "positional"}}, "models": {"a": model}, "audit": audit}


def read(folder: Path, audit: Any) -> Catalog:
    path = folder / "data_catalog.yaml"
    with path.open("w") as file:
        YAML().dump(content(audit), file)
    return read_catalog(path, {})


def test_without_the_section__every_check_is_on(tmp_path: Path) -> None:
    audit = read(tmp_path, {}).audit

    assert audit.promote == "on_pass"
    assert all(getattr(audit.checks, name) is not None for name in Checks.model_fields)


def test_null__switches_a_check_off_and_leaves_the_others(tmp_path: Path) -> None:
    checks = read(tmp_path, {"checks": {"drift": None, "quality": {"min_points": 10}}}).audit.checks

    assert checks.drift is None
    assert checks.quality is not None
    assert (checks.quality.min_points, checks.quality.enforced) == (10, True)
    assert checks.missing is not None


@pytest.mark.parametrize(
    ("audit", "message"),
    [
        ({"baselin": "x"}, "unknown key; did you mean 'baseline'"),
        ({"checks": {"near_duplicat": {}}}, "unknown key; did you mean 'near_duplicate'"),
        ({"checks": {"drift": {"max_chnge": 0.1}}}, "unknown key; did you mean 'max_change'"),
        ({"promote": "always"}, "got the text 'always', expected 'on_pass' or 'never'"),
        ({"checks": {"near_duplicate": {"at_least": 1.5}}}, "got the number 1.5, expected <= 1"),
        ({"checks": {"undeclared_lineage": {"at_least": "high"}}}, "got the text 'high', expected a number"),
        ({"checks": {"drift": "yes"}}, "got the text 'yes', expected a mapping"),
    ],
)
def test_mistake__is_told_with_its_line(tmp_path: Path, audit: Any, message: str) -> None:
    with pytest.raises(CatalogError) as caught:
        read(tmp_path, audit)

    [problem] = caught.value.problems
    assert message in problem.message
    assert problem.line > 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content(audit), catalog_schema())


@pytest.mark.parametrize("audit", [{"baseline": "atlas"}, {"path": "atlas"}, {"path": "b", "baseline": "b"}])
def test_folders__are_different_ones(tmp_path: Path, audit: Any) -> None:
    with pytest.raises(
        CatalogError, match=r", which is (atlas|audit)\.path .*, expected folders apart from each other\. Rename one"
    ):
        read(tmp_path, audit)


@pytest.mark.parametrize("title", ["", "two\nlines", "\u202eturned", " "])
def test_title_of_the_page__is_visible_text(title: str) -> None:
    with pytest.raises(ValidationError, match=r"expected visible text. Remove them"):
        AtlasConfig(title=title)

    assert "title" not in AtlasConfig(title="Encoders of Ada").deciding()
