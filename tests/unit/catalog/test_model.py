"""What ``meta`` may say: anything, but Hugging Face's words as Hugging Face means them."""

from typing import Any

import pytest

from lfm_tasks.catalog.model import RELATIONS, check_meta


@pytest.mark.parametrize(
    "meta",
    [
        {},
        {"anything": [1, {"deep": None}]},
        {"base_model": "a"},
        {"base_model": ["a", "b"], "base_model_relation": "merge"},
        *({"base_model": "a", "base_model_relation": relation} for relation in RELATIONS),
    ],
)
def test_meta__that_is_fine_stays_as_it_is(meta: dict[str, Any]) -> None:
    assert check_meta(meta) == meta


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ({"base_model": 3}, "found the number 3 as base_model, needs the name of a model or a list of names"),
        ({"base_model": []}, "found an empty list as base_model"),
        ({"base_model": ""}, "found the text '' as base_model"),
        ({"base_model": ["a", 1]}, "found a list as base_model"),
        (
            {"base_model": "a", "base_model_relation": "finetuned"},
            "found the text 'finetuned' as base_model_relation, needs one of finetune, .*; did you mean 'finetune'",
        ),
        ({"base_model": "a", "base_model_relation": ["copy"]}, "found a list as base_model_relation, needs one of"),
        (
            {"base_model_relation": "copy"},
            "found base_model_relation 'copy' without base_model: name the model it came from",
        ),
    ],
)
def test_meta__that_cannot_be_meant_is_refused(meta: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_meta(meta)
