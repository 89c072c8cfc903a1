"""The profile along the depth: where layers stand on it, and which of them it names."""

from typing import Any

import pytest

from lfm_tasks.report.parity import depth_profile


def layer(name: str, largest: float | None, status: str = "within") -> dict[str, Any]:
    tolerance = None if status == "failed" else 1e-5
    return {"reference": name, "largest_relative": largest, "typical_relative": largest, "tolerance": tolerance,
            "status": status}  # fmt: skip


def test_layers__stand_higher_the_more_they_differ_and_equal_ones_lowest() -> None:
    drawn = depth_profile([layer("a", 0.0, "equal"), layer("b", 1e-7), layer("c", 1e-2, "beyond")])
    heights = [point["largest"] for point in drawn["points"]]  # from the top
    assert heights[0] > heights[1] > heights[2]
    assert [point["x"] for point in drawn["points"]] == [drawn["left"], 450, drawn["right"]]
    limit = {float(place.split(",")[1]) for place in drawn["limit"].split()}
    assert heights[2] < limit.pop() < heights[1]


@pytest.mark.parametrize("status", ["beyond", "failed"])
def test_layers_without_numbers__stand_on_the_highest_line(status: str) -> None:
    drawn = depth_profile([layer("a", 1e-7), layer("b", None, status)])
    assert drawn["points"][1]["largest"] == min(tick["y"] for tick in drawn["ticks"])
    assert len(drawn["typical"].split()) == (1 if status == "failed" else 2)


def test_names__are_of_the_first_the_last_and_the_first_broken_layer() -> None:
    layers = [
        layer(f"l{number}", 1e-2 if number > 6 else 0.0, "beyond" if number > 6 else "equal") for number in range(9)
    ]
    labels = depth_profile(layers)["labels"]
    assert [(one["name"], one["anchor"], one["is_broken"]) for one in labels] == [
        ("l0", "start", False), ("l8", "end", False), ("l7", "end", True),
    ]  # fmt: skip
    [only] = depth_profile([layer("x" * 100, 1.0, "beyond")])["labels"]
    assert (only["is_broken"], len(only["name"])) == (True, 48)
