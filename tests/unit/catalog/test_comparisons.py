"""Comparisons choose their models by glob and by meta; what fits no model is told with its line."""

from pathlib import Path

import pytest

from lfm_tasks.catalog import Catalog, CatalogError, Comparison, ModelFacts, read_catalog
from lfm_tasks.catalog.comparisons import chosen_models, chosen_spaces, comparison_dataset, layer_misses
from lfm_tasks.spaces import Space

CATALOG = """\
version: 1
datasets:
  probe: {ids: {path: ids.npy}}
  other: {ids: {path: ids.npy}}
defaults:
  activations: {path: "{model}.npz", key: "{layer}", dataset: probe}
models:
  bert: {meta: {family: text, tasks: [mlm, nsp], size: 1}}
  gpt: {meta: {family: text, causal: true}}
  vit: {meta: {family: vision, base_model: bert}}
  far: {activations: {dataset: other}, meta: {family: text}}
comparisons:
  one: """
MEMBERS = {
    "bert": ModelFacts(("probe",), {"family": "text", "tasks": ["mlm", "nsp"], "size": 1}),
    "gpt": ModelFacts(("probe",), {"family": "text", "causal": True}),
    "vit": ModelFacts(("probe",), {"family": "vision"}),
}
SPACES = [Space("probe", model, layer) for model in ("bert", "gpt", "vit") for layer in ("in", "enc/0", "enc/1")]


def read(folder: Path, comparison: str) -> Catalog:
    path = folder / "data_catalog.yaml"
    path.write_text(CATALOG + comparison + "\n")
    return read_catalog(path, {})


def mistake(folder: Path, comparison: str) -> str:
    with pytest.raises(CatalogError) as caught:
        read(folder, comparison)
    return "\n".join(f"{problem.where}: {problem.message}" for problem in caught.value.problems)


def comparison(sources: object, targets: object = "*") -> Comparison:
    return Comparison.model_validate({"sources": sources, "targets": targets})


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("{sources: brt, targets: vit}", "one.sources: no model matches 'brt'; did you mean 'bert'?"),
        ("{sources: vit, targets: [gpt, 'x*/in']}", "one.targets: no model matches 'x*'; there is"),
        ("{sources: ['!*'], targets: vit}", "one.sources: of 4 models none is left. Remove a pattern with !"),
        ("{sources: vit, targets: {meta: {famly: text}}}", "no model has 'famly' in its meta; did you mean 'family'?"),
        (
            "{sources: vit, targets: {meta: {family: txt}}}",
            "no model has family: the text 'txt' in its meta; did you mean 'text'?",
        ),
        ("{sources: vit, targets: {meta: {size: true}}}", "no model has size: true in its meta; there is 1"),
        (
            "{sources: vit, targets: {meta: {family: vision, size: 1}}}",
            "no model has all of family, size as wanted in its meta: ask for less",
        ),
        ("{sources: vit, targets: '*'}", "one: got models on other, probe, expected one dataset. Set one"),
        ("{sources: vit, targets: '*', dataset: prob}", "no model is on the dataset 'prob'; did you mean 'probe'?"),
        ("{sources: far, targets: '*', dataset: probe}", "no model matches 'far'; there is bert, gpt, vit"),
        ("{sources: 3, targets: vit}", "got the number 3, expected a glob such as \"resnet*\", a list of globs, or"),
        ("{sources: [], targets: vit}", "one.sources: got an empty list, expected at least one"),
        ("{sources: {meta: {}}, targets: vit}", "one.sources.meta: got an empty mapping, expected at least one"),
        ("{sources: {mta: {}}, targets: vit}", "unknown key; did you mean 'meta'?"),
        ("{sources: vit}", "targets is missing. Add it"),
        ("{sources: vit, targets: gpt, measures: [lfm, lfm]}", "got lfm more than once, expected each once"),
    ],
)  # fmt: skip
def test_comparison__that_fits_no_model_or_has_another_form_is_refused(
    tmp_path: Path, written: str, message: str
) -> None:
    assert message in mistake(tmp_path, written)


def test_facets__of_models_without_meta_are_told_so(tmp_path: Path) -> None:
    path = tmp_path / "data_catalog.yaml"
    source = "{path: a.npz, key: '{layer}', dataset: probe}"
    path.write_text(
        f"version: 1\ndatasets: {{probe: {{ids: {{path: i.npy}}}}}}\nmodels: {{a: {{activations: {source}}}}}\n"
        "comparisons: {one: {sources: a, targets: {meta: {family: text}}}}\n"
    )
    with pytest.raises(CatalogError, match="no model has 'family' in its meta; none has any meta"):
        read_catalog(path, {})


def test_comparison__that_fits_is_read(tmp_path: Path) -> None:
    catalog = read(tmp_path, "{sources: {meta: {family: text}}, targets: 'vit/*', dataset: probe, measures: [overlap]}")

    chosen = catalog.comparisons["one"]
    assert chosen.targets == ("vit/*",)
    assert chosen.measures == ("overlap",)
    assert comparison_dataset(chosen, catalog.model_facts()) == "probe"
    assert comparison_dataset(comparison("vit", "gpt"), catalog.model_facts()) == "probe"


@pytest.mark.parametrize(
    ("side", "models"),
    [
        ("*", ["bert", "gpt", "vit"]),
        (["?i?", "b*"], ["bert", "vit"]),
        (["*", "!gpt"], ["bert", "vit"]),
        (["!gpt"], ["bert", "vit"]),
        ("[bg]*/enc/*", ["bert", "gpt"]),
        ({"meta": {"family": "text"}}, ["bert", "gpt"]),
        ({"meta": {"family": ["vision", "audio"]}}, ["vit"]),
        ({"meta": {"tasks": "nsp"}}, ["bert"]),
        ({"meta": {"tasks": ["nsp", "mlm"], "family": "text"}}, ["bert"]),
        ({"meta": {"causal": True}}, ["gpt"]),
        ({"meta": {"causal": 1}}, []),
    ],
)
def test_models__are_chosen_by_glob_and_by_meta(side: object, models: list[str]) -> None:
    assert chosen_models(comparison(side).sources, MEMBERS) == models


@pytest.mark.parametrize(
    ("side", "spaces"),
    [
        ("gpt", ["gpt/in", "gpt/enc/0", "gpt/enc/1"]),
        ("gpt/enc/0", ["gpt/enc/0"]),
        (["*/enc/*", "!vit"], ["bert/enc/0", "bert/enc/1", "gpt/enc/0", "gpt/enc/1"]),
        (["[bg]*", "!*/enc/*"], ["bert/in", "gpt/in"]),
        ({"meta": {"family": "vision"}}, ["vit/in", "vit/enc/0", "vit/enc/1"]),
    ],
)
def test_spaces__are_chosen_in_their_order(side: object, spaces: list[str]) -> None:
    assert [space.name for space in chosen_spaces(comparison(side).sources, SPACES, MEMBERS)] == spaces


@pytest.mark.parametrize(
    ("side", "unopened", "messages"),
    [
        (["gpt/in", "vit/enc/*"], [], []),
        (["gpt/in", "vit/nc/0"], [], ["no space matches 'vit/nc/0'; did you mean 'vit/enc/0' or"]),
        ("*/head", [], ["no space matches '*/head'; there is"]),
        ("new/head", ["new"], []),
        (["vit/*", "!*/in", "!*/enc/?"], [], ["of 9 spaces none is left. Remove a pattern with !"]),
    ],
)
def test_layers__that_no_model_has_are_missed(side: object, unopened: list[str], messages: list[str]) -> None:
    members = MEMBERS | dict.fromkeys(unopened, ModelFacts(("probe",), {}))

    problems = list(layer_misses(comparison(side).sources, SPACES, unopened, members))

    assert all(text.startswith(start) for text, start in zip(problems, messages, strict=True))
