"""A run knows what it computes, reports the progress of its stages, and counts what they do."""

from types import SimpleNamespace
from typing import Any

from lfm_tasks.runtime.run import Failure, Run, Scope, StageCounts
from lfm_tasks.spaces import Space
from lfm_tasks.variables import NOTHING_HIDDEN, hidden_values
from lfm_tasks.workers.pool import InProcess, JobFailure


def test_results__come_with_their_jobs_and_progress() -> None:
    reported: list[tuple[str, int, int]] = []
    nothing: Any = SimpleNamespace(hidden=NOTHING_HIDDEN)
    run = Run(nothing, nothing, InProcess(), lambda *progress: reported.append(progress))

    results = []
    for job, result in run.results("bases", len, ["a", "bbb"]):
        results.append((job, result, len(reported)))

    # Progress is reported after the stage has used the result.
    assert results == [("a", 1, 1), ("bbb", 3, 2)]
    assert reported == [("bases", 0, 2), ("bases", 1, 2), ("bases", 2, 2)]
    assert list(run.results("scores", len, [])) == []
    assert reported[3:] == [("scores", 0, 0)]


def refuse(job: str) -> None:
    raise ValueError(f"cannot open {job}")


def test_failures__hide_the_values_of_variables_whoever_tells_them() -> None:
    hidden = hidden_values({"KEY": "s3cret/zoo"})
    catalog: Any = SimpleNamespace(hidden=hidden, hide_values=hidden)
    run = Run(catalog, catalog, InProcess(), lambda *progress: None)

    [(_, failure)] = run.results("bases", refuse, ["/s3cret/zoo/a.npz"])
    run.add_failures([Failure("probe", "a", "", "validate", "failed", "/s3cret/zoo/b.npz: gone")])

    assert failure == JobFailure("failed", "ValueError: cannot open /${KEY}/a.npz")
    assert [failure.message for failure in run.failures] == ["/${KEY}/b.npz: gone"]


def test_scope__is_everything_or_what_its_globs_match() -> None:
    assert Scope().has("mlp_s0")
    assert Scope(("mlp_*",)).has("mlp_s0")
    assert not Scope(("mlp_*",)).has("cnn")


def test_counts__add_up_by_stage() -> None:
    counts = StageCounts()
    for computed, reused in ((1, 2), (3, 0)):
        counts.add("bases", computed, reused)
    assert (counts.computed, counts.reused) == ({"bases": 4}, {"bases": 2})


def test_failure__of_a_space_names_its_stage_and_reason() -> None:
    failure = Failure.of_space(Space("probe", "a", "x"), "bases", JobFailure("constant", "got the same value"))
    assert failure == Failure("probe", "a", "x", "bases", "constant", "got the same value")
