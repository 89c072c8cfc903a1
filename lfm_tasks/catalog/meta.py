"""What ``meta`` may say of a model: anything, and Hugging Face's words with their meaning."""

from pydantic import JsonValue

from lfm_tasks.catalog.problems import describe, did_you_mean

# https://huggingface.co/docs/hub/model-cards#specifying-a-base-model, and copy: the same function in other units.
RELATIONS = ("finetune", "adapter", "quantized", "merge", "copy")


def check_meta(meta: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Return ``meta``; ValueError if ``base_model`` or ``base_model_relation`` cannot be what they are called."""
    base, relation = meta.get("base_model"), meta.get("base_model_relation")
    names = base if isinstance(base, list) else [base]
    if base is not None and (not names or not all(isinstance(name, str) and name for name in names)):
        raise ValueError(f"found {describe(base)} as base_model, needs the name of a model or a list of names")
    if relation is None:
        return meta
    if relation not in RELATIONS:
        known = ", ".join(RELATIONS)
        hint = did_you_mean(relation, RELATIONS) if isinstance(relation, str) else ""
        raise ValueError(f"found {describe(relation)} as base_model_relation, needs one of {known}{hint}")
    if base is None:
        raise ValueError(f"found base_model_relation {relation!r} without base_model: name the model it came from")
    return meta
