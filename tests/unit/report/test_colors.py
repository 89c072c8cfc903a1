"""The colors of the page: told apart by people who see two of three primary colors, and read on either paper."""

import itertools
import re

import numpy as np
import pytest

from lfm_tasks.report.templates import resource

# Machado, Oliveira & Fernandes (2009), "A physiologically-based model for simulation of color vision deficiency",
# table 1, severity 1: what linear red, green and blue become.
MACHADO = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    "nothing": np.eye(3).tolist(),
}


def linear(color: str) -> np.ndarray:
    """Return the linear red, green and blue of ``#rrggbb``."""
    values = np.array([int(color[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(color: np.ndarray) -> np.ndarray:
    """Return CIE L*a*b* (D65) of linear red, green and blue."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(np.clip(to_xyz @ np.clip(color, 0, 1), 0, None) / [0.9505, 1.0, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("kind", MACHADO)
def test_colors_of_groups__are_told_apart_by_every_eye(kind: str) -> None:
    colors = re.findall(r"#[0-9a-f]{6}", resource("marks.js").split("COLORS =")[1].split(";")[0])
    seen = [lab(np.array(MACHADO[kind]) @ linear(color)) for color in colors]

    assert len(colors) == 8
    # A difference of about 2 can just be seen side by side.
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 9


@pytest.mark.parametrize("kind", MACHADO)
def test_viridis__grows_lighter_for_every_eye(kind: str) -> None:
    palette = re.search(r'VIRIDIS = "([0-9a-f]+)"', resource("heat_map.js"))[1]  # type: ignore[index]
    stops = [f"#{palette[place : place + 6]}" for place in range(0, len(palette), 6)]

    lightness = [lab(np.array(MACHADO[kind]) @ linear(stop))[0] for stop in stops]

    assert np.diff(lightness).min() > 2


def contrast(first: str, second: str) -> float:
    """Return the contrast of two colors by WCAG 2, from 1 to 21."""
    lighter, darker = sorted((linear(color) @ [0.2126, 0.7152, 0.0722] for color in (first, second)), reverse=True)
    return float((lighter + 0.05) / (darker + 0.05))


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text__stands_out_from_the_paper(scheme: int) -> None:
    rule = re.findall(r":root {([^}]*)}", resource("page.css"))[scheme]
    color = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", rule))

    for name in ("ink", "soft", "accent", "act", "look", "fine"):
        assert contrast(color[name], color["paper"]) >= 4.5, name
        assert contrast(color[name], color["tint"]) >= 4.5, name
