"""Whatever stands in a section of the catalog: it is read, and reads the same once written, or told line by line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lfm_tasks.catalog import CatalogError, read_catalog
from lfm_tasks.catalog.names import Problem
from lfm_tasks.catalog.reading import catalog_yaml

Values = st.SearchStrategy[Any]

odd = ["", "*", "!*", "[", "a/b", "../x", "{model}", "{", "{}", "${X}", "${X:-y}", "$${", "s3://b/{model}", "\u202e"]
texts = st.sampled_from([*odd, "a" * 300]) | st.text(max_size=8)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6
)


def section(**known: Values) -> Values:
    """Give mappings with some of the known keys, each with a value that fits it or with anything; others at times."""
    keys = {name: value | anything for name, value in known.items()}
    exact = st.fixed_dictionaries({}, optional=known)
    loose = st.fixed_dictionaries({}, optional=keys)
    return exact | loose | st.builds(lambda content, more: {**more, **content}, loose, st.dictionaries(texts, anything))


def named(value: Values) -> Values:
    return st.dictionaries(st.sampled_from(["a", "b", "A", "con", "x-y"]) | texts, value, max_size=3)


def either(*words: Any) -> Values:
    return st.sampled_from(words)


paths = either("arrivals/{model}.npy", "arrivals/{model}/{layer}.npy", "{model}.h5", "{dataset}.npz", "s3://b/a.npy")
storage = either("lab", "lab-2", "1", "LFM_ATLAS_STORAGE_LAB", "${KEY}")
globs = st.lists(either("first", "first/*", "*", "!second", "f*/l?", "none*", "[!a]*") | texts, max_size=3)
meta = st.dictionaries(either("family", "base_model", "base_model_relation", "license"), anything, max_size=3)
side = globs | either("first", "second/relu*", "*") | section(meta=meta | st.just({"family": "text"}))
factories = either("zoo:tiny", "a.b:C", "os:system", "zoo", "zoo:", "..:x")
head = section(layer=either("relu1", "fc") | texts, output=either("logits") | texts)
measures = st.lists(either("lfm", "overlap", "cka_linear"), max_size=3)
file = section(path=paths, key=either("x", "{layer}"), storage=storage)
activations = section(path=paths, key=either("{layer}", "x"), dataset=either("probe", "inputs"), storage=storage,
                      shape=either("nd", "ntd"), pool=either("mean", "cls+mean"), mask=file, ids=file,
                      prefix_tokens=st.integers(), dtype=either("float16"))  # fmt: skip
torch = section(factory=factories, args=st.dictionaries(texts, anything, max_size=2), dataset=either("inputs"),
                weights=either("{model}.safetensors", "a.pt"), pool=either("flatten"), batch_size=st.integers(),
                device=either("cpu", "cuda"))  # fmt: skip
device = either("auto", "cuda:1", "gpu")
checkpoint = section(path=either("arrivals/{model}", "arrivals/{model}/final", "hub/bert"), dataset=either("docs"),
                     max_tokens=st.integers(), pool=either("auto", "mean"), batch_size=st.integers(), device=device,
                     dtype=either("float16", "int8"), tower=either("text") | texts, base=paths, tokenizer=paths,
                     prompt=texts, modules=st.booleans(), points=either("rows", "tokens"))  # fmt: skip
columns = either("id", "positional", "folder") | texts
raw_texts = section(path=either("t.jsonl", "t.txt", "data/*.parquet", "s3://b/*.csv"), text=columns, id=columns,
                    label=columns, split=either("train"), storage=storage)  # fmt: skip
raw_images = section(path=either("i/*/*.png", "i.parquet", "i.npz"), image=columns, id=columns | file,
                     label=columns | file, split=either("train"), storage=storage)  # fmt: skip
onnx = section(path=either("{model}.onnx"), dataset=either("inputs"), pool=either("flatten"))
model = section(activations=activations, torch=torch, onnx=onnx, transformers=checkpoint, timm=checkpoint, head=head,
                layers=globs, meta=meta)  # fmt: skip

comparison = section(sources=side, targets=side, dataset=either("probe", "inputs"), measures=measures)

SECTIONS: dict[str, Values] = {
    "comparisons": st.fixed_dictionaries({"comparisons": named(comparison)}),
    "discover": st.fixed_dictionaries({"discover": named(model)}),
    "torch": st.fixed_dictionaries({"models": named(st.fixed_dictionaries({"torch": torch}))}),
    "checkpoints": st.fixed_dictionaries(
        {
            "models": named(st.fixed_dictionaries({"transformers": checkpoint})),
            "discover": named(st.fixed_dictionaries({"timm": checkpoint})),
        }
    ),
    "raw inputs": st.fixed_dictionaries(
        {"datasets": named(st.fixed_dictionaries({"texts": raw_texts}) | st.fixed_dictionaries({"images": raw_images}))}
    ),
    "head": st.fixed_dictionaries({"models": named(st.fixed_dictionaries({"onnx": onnx, "head": head}))}),
    "defaults": st.fixed_dictionaries({"defaults": model}),
    "storage": st.fixed_dictionaries(
        {
            "datasets": named(section(ids=file, labels=file, inputs=file, groups=file, strata=file)),
            "models": named(st.fixed_dictionaries({"activations": activations})),
        }
    ),
    "maps": st.fixed_dictionaries(
        {"atlas": section(maps=section(regime=either("full", "anchors", "labels")), measures=measures)}
    ),
}  # fmt: skip

GOOD: dict[str, Any] = {
    "version": 1,
    "datasets": {
        "docs": {"texts": {"path": "t.txt"}},
        "probe": {"ids": "positional"},
        "inputs": {"ids": "positional", "inputs": {"path": "i.npy"}},
    },
    "models": {
        "first": {"activations": {"path": "first.npz", "dataset": "probe"}, "meta": {"family": "text"}},
        "second": {"onnx": {"path": "second.onnx", "dataset": "inputs"}, "head": {"layer": "relu1"}},
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sections")
    (folder / "arrivals" / "deep").mkdir(parents=True)
    for name, model_type in (("bert", "bert"), ("nul", "bert"), ("broken", None)):
        (folder / "arrivals" / name).mkdir()
        (folder / "arrivals" / name / "config.json").write_text(json.dumps({"model_type": model_type, "vocab_size": 1}))
    for name in ("new.npy", "first.npy", "CON.npy", "deep/layer1.npy"):
        np.save(folder / "arrivals" / name, np.zeros(2))
    return folder


def merged(content: dict[str, Any]) -> dict[str, Any]:
    both = {key: {**GOOD.get(key, {}), **value} if isinstance(value, dict) else value for key, value in content.items()}
    return {**GOOD, **both}


def is_read(folder: Path, content: dict[str, Any]) -> bool:
    """Return whether the catalog is read; either it reads the same once written, or each of its mistakes has a line."""
    text = json.dumps(content, indent=1, ensure_ascii=False)  # JSON is YAML
    path = folder / "data_catalog.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    problems: tuple[Problem, ...] = ()
    try:
        catalog = read_catalog(path, {})
    except CatalogError as error:
        problems = error.problems
    if problems:
        n_lines = text.count("\n") + 1
        assert [problem for problem in problems if not 1 <= problem.line <= n_lines or not problem.message] == []
        return False
    path.write_text(catalog_yaml(catalog), encoding="utf-8")
    again = read_catalog(path, {})
    kept = {"version", "datasets", "models", "comparisons", "atlas", "cluster"}
    assert again.model_dump(include=kept) == catalog.model_dump(include=kept)
    return True


@pytest.mark.parametrize("name", SECTIONS)
def test_any_section__is_read_or_refused(name: str, folder: Path) -> None:
    outcomes = set()

    @given(content=SECTIONS[name])
    @settings(max_examples=120, deadline=None)
    def try_out(content: dict[str, Any]) -> None:
        outcomes.add(is_read(folder, merged(content)))

    try_out()
    assert outcomes == {True, False}  # else nothing was tried out
