"""A catalog is read whole, or every mistake is reported at once with its line; the schema for editors agrees."""

import json
import pickle
import random
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lfm_tasks.catalog import Catalog, CatalogError, catalog_schema, read_catalog
from lfm_tasks.catalog.cluster import LocalCluster
from lfm_tasks.catalog.reading import catalog_yaml
from lfm_tasks.catalog.yaml_tree import read_tree, to_builtins

SHIPPED = Path(__file__).parents[3] / "data_catalog.yaml"

GOOD = """\
version: 1
datasets:
  probe: {ids: {path: ids.npy}}
models:
  small:
    activations: {path: "zoo/{model}.npz", key: "{layer}", dataset: probe}
    layers: ["conv*", "!*.norm"]
"""

# Out of the folder, reserved by Windows, invisible, like another one, an option, a formula, too long.
HOSTILE_NAMES = [
    "..",
    ".",
    "../x",
    "../../etc/passwd",
    "a/../b",
    "/etc/passwd",
    "/",
    "a/b",
    "a//b",
    "\\\\host\\share",
    "..\\x",
    "a\\b",
    "C:\\x",
    "C:",
    "a:b",
    "~",
    "~root",
    "$HOME",
    "CON",
    "con.txt",
    "aux",
    "NUL",
    "nul.npy",
    "COM1",
    "lpt9.x",
    "a.",
    ".hidden",
    "a ",
    " a",
    "a b",
    "a\tb",
    "a\nb",
    "a\r\nb",
    "a\u0000b",
    "a\u001b[31m",
    "\u202etxt",
    "a\u200bb",
    "\ufeffa",
    "\u0430bc",
    "\uff41",
    "u\u0308",
    "\u00fc",
    "\U0001f600",
    "-rf",
    "--help",
    "=1+1",
    "@x",
    "+1",
    "<script>",
    "a&b",
    "a|b",
    "a*",
    "a?",
    "'a'",
    '"',
    "`id`",
    "$(id)",
    "a;b",
    "%2e%2e",
    "x" * 129,
    "",
]


def read(folder: Path, text: str, **environment: str) -> Catalog:
    path = folder / "data_catalog.yaml"
    path.write_text(text, encoding="utf-8")
    return read_catalog(path, environment)


def mistakes(folder: Path, text: str, **environment: str) -> list[str]:
    """Return all mistakes as a person reads them, the path cut off."""
    with pytest.raises(CatalogError) as caught:
        read(folder, text, **environment)
    return [str(problem).removeprefix(str(folder / "data_catalog.yaml")) for problem in caught.value.problems]


def test_good_catalog__is_read(tmp_path: Path) -> None:
    catalog = read(tmp_path, GOOD)

    model = catalog.model_on("small")
    assert model.activations is not None
    assert model.activations.path == "zoo/{model}.npz"
    assert model.layers == ("conv*", "!*.norm")
    assert model.dataset == "probe"
    assert catalog.root == tmp_path
    assert catalog.locate("zoo/a.npz") == tmp_path / "zoo" / "a.npz"
    assert catalog.atlas.measures == ("lfm", "overlap")


def test_shipped_catalog__is_good() -> None:
    assert len(read_catalog(SHIPPED).models) == 8


def test_mistakes__come_all_at_once_in_the_order_of_lines(tmp_path: Path) -> None:
    text = """\
version: 2
datasets:
  probe: {ids: {path: ids.npy}, lables: {path: labels.npy}}
  probe: {ids: positional}
models:
  small:
    activations: {path: "zoo/{modle}.npz", dataset: prob}
  con:
    onnx: {path: a.onnx, dataset: probe}
atlas:
  n_eigenpairs: many
  graph: {metric: cosine, n_neighbors: 0}
"""
    assert mistakes(tmp_path, text) == [
        ":1: version: got the number 2, expected 1",
        ":3: datasets.probe.lables: unknown key; did you mean 'labels'?",
        ":4: datasets.probe: got the key twice, first in line 3. Keep one",
        ":7: models.small.activations.dataset: the dataset 'prob' is not declared under datasets; "
        "did you mean 'probe'?",
        ":7: models.small.activations.path: got {modle}, expected one of {model}, {layer}, {dataset}, {shard}, {id}; "
        "did you mean 'model'?",
        ":8: models.con: got the name 'con', which Windows reserves for a device. Rename it",
        ":9: models.con.onnx.dataset: the dataset 'probe' has no inputs to run the model on. "
        "Add inputs: {path: inputs.npy} to it",
        ":11: atlas.n_eigenpairs: got the text 'many', expected auto or a whole number >= 2",
        ":12: atlas.graph.metric: got the text 'cosine', expected 'angular' or 'euclidean'; "
        "there is angular, euclidean",
        ":12: atlas.graph.n_neighbors: got the number 0, expected auto or a whole number >= 1",
    ]


MISTAKES = {
    "no models": ("version: 1\ndatasets: {p: {ids: positional}}\n", ["models is missing. Add it"]),
    "no version": (GOOD.replace("version: 1\n", ""), ["version is missing. Add it"]),
    "empty models": (GOOD.split("models:")[0] + "models: {}\n", ["got an empty mapping, expected at least one"]),
    "nothing": ("", ["the file is empty, expected version, datasets and models"]),
    "text": ("hello", ["got the text 'hello', expected version, datasets and models"]),
    "list": ("- 1", ["got a list, expected version, datasets and models"]),
    "no source": (
        GOOD.split("    activations")[0] + "    layers: [a]\n",
        ["got no source, expected exactly one of activations, onnx, torch, transformers, timm, sentence_transformers"],
    ),
    "two sources": (
        GOOD + "    onnx: {path: a.onnx, dataset: probe}\n",
        ["got activations and onnx, expected exactly one of", "the dataset 'probe' has no inputs"],
    ),
    "no origin": (
        GOOD.replace("{ids: {path: ids.npy}}", "{labels: {path: l.npy}}"),
        ["got neither of builtin, texts, images and ids, expected one: texts: "],
    ),
    "two origins": (GOOD.replace("{ids:", "{builtin: digits, ids:"), ["got both of builtin and ids"]),
    "builtin labels": (
        GOOD.replace("{ids: {path: ids.npy}}", "{builtin: digits, labels: {path: l.npy}}"),
        ["got labels or inputs beside builtin"],
    ),
    "split": (GOOD.replace("ids.npy}}", "ids.npy}, split: probe}"), ["got split without builtin. Remove it"]),
    "layer twice": (
        GOOD.replace("zoo/{model}.npz", "zoo/{layer}/{layer}.npz"),
        ["got {layer} 2 times, expected it once"],
    ),
    "layer in both": (
        GOOD.replace("zoo/{model}.npz", "zoo/{layer}.npz"),
        ["got {layer} in path and in key, expected it in one of them"],
    ),
    "brace": (GOOD.replace("zoo/{model}", "zoo/{model"), ["got a single brace"]),
    "no layers": (GOOD.replace('["conv*", "!*.norm"]', "[]"), ["got an empty list, expected at least one"]),
    "layers as text": (GOOD.replace('["conv*", "!*.norm"]', "conv*"), ["got the text 'conv*', expected a list"]),
    "name": (GOOD.replace("  small:", "  ../small:"), ["got the name '../small', expected 1 to 128 of A-Z"]),
    "dot": (GOOD.replace("  small:", "  small.:"), ["which ends in a dot that Windows drops. Rename it"]),
    "twins": (
        GOOD + "  Small:\n    activations: {path: a.npy, dataset: probe}\n",
        ["differs from 'small' only by upper and lower case"],
    ),
    "control": (GOOD.replace("conv*", "conv\\u202e"), ["got invisible or control characters"]),
    "tag": (
        GOOD.replace("{path: ids.npy}", "!!python/object:os.system ls"),
        ["the tag '!!python/object:os.system'"],
    ),
    "tagged map": (GOOD.replace("{path: ids.npy}", "!x {path: ids.npy}"), ["got the tag '!x', expected plain YAML"]),
    "merge of text": (GOOD.replace("    layers", "    <<: text\n    layers"), ["got << with something else"]),
    "mark as key": (GOOD + "<file>: 1\n<x: 3\n", ["unknown key", "<x: unknown key"]),
    "list as key": (GOOD + "[a, b]: 1\n", ["got a list or mapping as a key, expected text"]),
    "endless": (GOOD + "x-a: &a [*a]\n", ["got an alias inside its own anchor"]),
    "variable": (
        GOOD.replace("ids.npy", "'${IDS}'"),
        ["the variable IDS is not set. Set it, or write ${IDS:-"],
    ),
    "broken variable": (GOOD.replace("ids.npy", "'${1x}'"), ["got '${1x}', expected ${NAME} or ${NAME:-default}"]),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistake__is_told(case: str, tmp_path: Path) -> None:
    text, expected = MISTAKES[case]

    messages = mistakes(tmp_path, text)

    assert len(messages) == len(expected), messages
    for message, part in zip(sorted(messages), sorted(expected), strict=True):
        assert part in " ".join(messages), message
    assert all(line.startswith(":") and line[1].isdigit() for line in messages)


def test_anchors_merges_and_private_keys__serve_the_catalog(tmp_path: Path) -> None:
    text = GOOD.replace("models:", "x-common: &common {layers: [fc], meta: {license: mit}}\nmodels:").replace(
        '    layers: ["conv*", "!*.norm"]', "    <<: *common\n    layers: [conv1]"
    )
    model = read(tmp_path, text).model_on("small")

    assert model.layers == ("conv1",)
    assert model.meta == {"license": "mit"}


def test_variables__are_filled_in_and_typed(tmp_path: Path) -> None:
    text = GOOD.replace("ids.npy", "'${FOLDER}/${NAME:-ids}.npy'")
    text += "atlas:\n  path: a$${b}\ncluster:\n  n_workers: ${K}\n"
    catalog = read(tmp_path, text, FOLDER="data", K="7")

    ids = catalog.datasets["probe"].ids
    assert not isinstance(ids, str)
    assert ids is not None
    assert ids.path == "data/ids.npy"
    assert catalog.cluster == LocalCluster(n_workers=7)
    assert catalog.atlas.path == "a${b}"
    assert f"{ids.path}" == "${FOLDER}/ids.npy"


def test_value_in_quotes__stays_text_and_is_not_shown(tmp_path: Path) -> None:
    assert mistakes(tmp_path, GOOD + "cluster: {n_workers: '${K}'}\n", K="7") == [
        ":8: cluster.n_workers: got a value of K that does not fit, expected a whole number"
    ]


def test_defaults__fill_up_what_a_model_does_not_say(tmp_path: Path) -> None:
    text = """\
version: 1
datasets: {probe: {ids: positional}, digits: {builtin: digits}}
defaults:
  activations: {path: "{model}.npz", key: "{layer}", dataset: probe, pool: mean}
  layers: [fc]
models:
  plain: {}
  own: {activations: {pool: max}, layers: [conv]}
  network: {onnx: {path: n.onnx, dataset: digits}}
"""
    models = read(tmp_path, text).models

    assert models["plain"].activations is not None
    assert (models["plain"].activations.pool, models["plain"].layers) == ("mean", ("fc",))
    assert models["own"].activations is not None
    assert (models["own"].activations.pool, models["own"].activations.path) == ("max", "{model}.npz")
    assert models["own"].layers == ("conv",)
    assert models["network"].activations is None
    assert models["network"].layers == ("fc",)


def test_mistake_in_defaults__is_told_at_its_own_line(tmp_path: Path) -> None:
    text = "defaults: {layers: 3}\n" + GOOD.replace('    layers: ["conv*", "!*.norm"]\n', "")
    assert mistakes(tmp_path, text) == [":1: defaults.layers: got the number 3, expected a list"]


def test_error__keeps_its_problems_between_processes(tmp_path: Path) -> None:
    with pytest.raises(CatalogError) as caught:
        read(tmp_path, "version: 2")
    copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - our own
    assert copy.problems == caught.value.problems
    assert str(copy) == str(caught.value)


def reads_or_refuses(folder: Path, text: str) -> None:
    path = folder / "fuzzed.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        problems, n_models = (), len(read_catalog(path, {}).models)
    except CatalogError as error:
        problems, n_models = error.problems, 0
    assert bool(problems) != bool(n_models)


@given(st.text(max_size=200))
@settings(max_examples=150, deadline=None)
def test_any_text__is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    reads_or_refuses(tmp_path_factory.getbasetemp(), text)


@given(st.randoms(use_true_random=False), st.integers(1, 6))
@settings(max_examples=150, deadline=None)
def test_shipped_catalog_with_any_damage__is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, chance: random.Random, n_changes: int
) -> None:
    text = SHIPPED.read_text(encoding="utf-8")
    for _ in range(n_changes):
        at, length = chance.randrange(len(text)), chance.randrange(12)
        put = "".join(chance.choices("{}[]:,&*!|>'\"#-? \n\t0a.~<", k=chance.randrange(5)))
        text = text[:at] + put + text[at + length :]
    reads_or_refuses(tmp_path_factory.getbasetemp(), text)


@pytest.mark.parametrize(
    "address", ["https://me:hunter2@host/a.npz", "s3://hunter2@b/a.npz", "https://h/a.npz?t=hunter2"]
)
def test_address_with_a_secret__is_refused_and_not_repeated(address: str, tmp_path: Path) -> None:
    [mistake] = mistakes(tmp_path, GOOD.replace("zoo/{model}.npz", address))
    assert "got an address with a user or a query, which may hold a secret, expected a plain one" in mistake
    assert "hunter2" not in mistake


@pytest.mark.parametrize("section", ["models", "datasets", "comparisons"])
def test_hostile_names__are_refused(section: str, tmp_path: Path) -> None:
    for name in HOSTILE_NAMES:
        if section == "models" and name == "a/b":
            continue  # as the hub calls models: it gets an alias
        quoted = json.dumps(name)
        text = {
            "models": GOOD.replace("  small:", f"  {quoted}:"),
            "datasets": GOOD.replace("  probe:", f"  {quoted}: {{ids: positional}}\n  probe:"),
            "comparisons": f"{GOOD}comparisons:\n  {quoted}: {{sources: small, targets: small}}\n",
        }[section]
        assert mistakes(tmp_path, text), name
        assert list(tmp_path.iterdir()) == [tmp_path / "data_catalog.yaml"]


def test_names_of_the_hub__get_an_alias_that_is_said(tmp_path: Path) -> None:
    text = """\
version: 1
datasets: {probe: {ids: positional}}
models:
  openai/clip-vit: {activations: {path: "acts/{model}/{layer}.npy", dataset: probe}, meta: {base_model: "x/{model}"}}
"""
    (tmp_path / "data_catalog.yaml").write_text(text)

    catalog = read_catalog(tmp_path / "data_catalog.yaml")

    (name, model), *_ = catalog.models_on_datasets()
    assert name == "openai--clip-vit"
    assert model.activations is not None
    assert model.activations.path == "acts/openai/clip-vit/{layer}.npy"
    assert model.meta == {"base_model": "x/{model}"}
    assert catalog.warnings() == [
        "models.openai/clip-vit: called openai--clip-vit here, because names of models are names of files, too"
    ]
    (tmp_path / "data_catalog.yaml").write_text(catalog_yaml(catalog))
    assert read_catalog(tmp_path / "data_catalog.yaml").models == catalog.models
    finetuned = '  mine: {activations: {path: "b.npz", dataset: probe}, meta: {base_model: openai/clip-vit}}\n'
    (tmp_path / "data_catalog.yaml").write_text(text + finetuned)
    assert read_catalog(tmp_path / "data_catalog.yaml").models["mine"].meta == {"base_model": "openai--clip-vit"}
    both = text + '  openai--clip-vit: {activations: {path: "b.npz", dataset: probe}}\n'
    assert any("openai/clip-vit" in problem for problem in mistakes(tmp_path, both))
    assert mistakes(tmp_path, text.replace("openai/clip-vit:", "../clip-vit:"))


def test_mistakes_that_others_hide__come_in_the_same_pass(tmp_path: Path) -> None:
    text = """\
version: 1
measures: [cka]
n_neighbors: 5
datasets: {probe: {ids: positional}}
models:
  small: {path: a.npy, activations: {path: a.npy, dataset: probe}}
atlas: {n_eigenpairs: 60, metric: angular, keep_maps: some, graph: {landmarks: 10}}
cluster: {type: address, scheduler: 3}
"""
    told = mistakes(tmp_path, text)
    assert [line for line in told if "landmarks" not in line] == [
        ":2: measures: unknown key; did you mean atlas.measures?",
        ":3: n_neighbors: unknown key; did you mean atlas.graph.n_neighbors?",
        ":6: models.small.path: unknown key; did you mean models.small.activations.path?",
        ":7: atlas.keep_maps: got the text 'some', expected 'best', 'all' or 'none'; there is all, best, none",
        ":7: atlas.metric: unknown key; did you mean atlas.graph.metric?",
        ":8: cluster.scheduler: got the number 3, expected text. Put it in quotes",
    ]
    # What pydantic looks at only once all keys are right.
    assert any(line.startswith(":7: atlas: got 10 landmarks with n_neighbors") for line in told)


def test_more_checks__are_told_with_the_others_and_leave_a_usable_catalog(tmp_path: Path) -> None:
    path = tmp_path / "data_catalog.yaml"
    path.write_text(GOOD + "x-mine: 3\naudits: {}\n")

    def more(content: Any) -> list[tuple[list[str], str]]:
        assert "x-mine" not in content
        return [(["models", "small"], "is not small")]

    with pytest.raises(CatalogError) as caught:
        read_catalog(path, more=more)

    assert [problem.message for problem in caught.value.problems] == [
        "is not small",
        "unknown key; did you mean 'audit'?",
    ]
    assert caught.value.usable is not None
    assert list(caught.value.usable.models) == ["small"]
    path.write_text(GOOD.replace("version: 1", "version: 2"))
    with pytest.raises(CatalogError) as caught:
        read_catalog(path, more=more)
    assert caught.value.usable is None


def shipped() -> dict[str, Any]:
    tree, problems = read_tree(SHIPPED)
    assert problems == []
    content: dict[str, Any] = to_builtins(tree)
    return {key: value for key, value in content.items() if not key.startswith("x-")}


def test_schema__is_a_schema_and_takes_the_shipped_catalog() -> None:
    schema = catalog_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(shipped(), schema)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"modles": {}},
        {"models": {}},
        {"atlas": {"n_eigenpairs": 0}},
        {"atlas": {"graph": {"metric": "cosine"}}},
        {"datasets": {"digits": {"builtin": "letters"}}},
    ],
)
def test_schema__refuses_what_the_reader_refuses(change: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(shipped() | change, catalog_schema())
