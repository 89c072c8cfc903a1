"""Patterns of paths and layers, and names."""

import pytest

from lfm_tasks.catalog.names import check_fields, check_layer_name, check_name, expand_layers, fill_pattern
from lfm_tasks.errors import DataError

LAYERS = ["conv1", "conv1.norm", "conv2", "conv10", "fc[0]", "fc"]


@pytest.mark.parametrize(
    ("patterns", "chosen"),
    [
        (["*"], LAYERS),
        (["conv*", "!*.norm"], ["conv1", "conv2", "conv10"]),
        (["!*.norm"], ["conv1", "conv2", "conv10", "fc[0]", "fc"]),
        (["fc", "conv?"], ["conv1", "conv2", "fc"]),
        (["fc[0]"], ["fc[0]"]),
        (["conv[12]"], ["conv1", "conv2"]),
        (["conv1", "conv*"], ["conv1", "conv1.norm", "conv2", "conv10"]),
    ],
)
def test_layers__are_chosen_in_the_models_order(patterns: list[str], chosen: list[str]) -> None:
    assert list(expand_layers(patterns, LAYERS)) == chosen


@pytest.mark.parametrize(
    ("patterns", "layers", "message"),
    [
        (["conv*", "cnov2"], LAYERS, "no layer matches 'cnov2'; did you mean 'conv2'"),
        (["Conv*"], LAYERS, r"no layer matches 'Conv\*'; (did you mean|there is)"),
        (["*"], [], "the model has no layers"),
        (["conv1", "!conv*"], LAYERS, "of 6 layers none is left. Remove a pattern with !"),
    ],
)
def test_layers__that_match_nothing_are_refused(patterns: list[str], layers: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        expand_layers(patterns, layers)
    assert caught.value.reason == "unknown_layer"


def test_fill__leaves_open_what_has_no_value() -> None:
    assert fill_pattern("a/{model}/{layer}.npy", layer="conv.1") == "a/{model}/conv.1.npy"


@pytest.mark.parametrize("value", ["../x", "a/b", "a\\b", "..", ".", "", "a\0"])
def test_fill__never_adds_a_folder(value: str) -> None:
    with pytest.raises(ValueError, match="expected one plain name without folders"):
        fill_pattern("zoo/{layer}.npy", layer=value)


@pytest.mark.parametrize("pattern", ["{", "}", "{{model}}", "{model}}", "{mo{del}"])
def test_fields__refuse_braces_that_stand_alone(pattern: str) -> None:
    with pytest.raises(ValueError, match="got a single brace"):
        check_fields(pattern, ["model"])


@pytest.mark.parametrize("name", ["a", "resnet18", "ViT-B_16.fp16", "0", "a" * 128])
def test_names__that_are_fine(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "expected 1 to 128"),
        ("a" * 129, "expected 1 to 128"),
        ("-a", "a letter or digit first"),
        (".hidden", "a letter or digit first"),
        ("a b", "expected 1 to 128"),
        ("réseau", "expected 1 to 128"),
        ("a\n", "expected 1 to 128"),
        ("NUL", "reserves for a device"),
        ("com1.onnx", "reserves for a device"),
        ("a.", "ends in a dot"),
    ],
)
def test_names__that_could_not_be_files_everywhere_are_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_name(name)


@pytest.mark.parametrize("name", ["encoder/layer.0", "层1", "a b", "x" * 256])
def test_layer_names__may_be_any_visible_text(name: str) -> None:
    assert check_layer_name(name) == name


@pytest.mark.parametrize(
    ("name", "message"),
    [("", "of 0 characters"), ("x" * 257, "of 257 characters"), ("a\x1b[2J", "invisible"), ("a\u200b", "invisible")],
)
def test_layer_names__without_visible_text_are_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_layer_name(name)
