"""Diffusion overlap against powers of dense Markov matrices."""

import numpy as np
import pytest

from lfm_tasks.spectral.bases.diffusion_overlap import diffusion_overlap
from lfm_tasks.spectral.bases.full_map import full_map, overlap
from lfm_tasks.spectral.bases.space import SpectralSpace, spectral_space


def spaces() -> list[SpectralSpace]:
    generator = np.random.default_rng(0)
    latent = generator.standard_normal((60, 2))
    rows = [np.tanh(latent @ generator.standard_normal((2, 6))) for _ in range(2)]
    return [spectral_space(side, n_eigenpairs=20, n_neighbors=12, kernel="binary") for side in rows]


@pytest.mark.parametrize("n_steps", [6, 12])
def test_diffusion_overlap__is_the_cosine_of_powers_of_the_walks(n_steps: int) -> None:
    source, target = spaces()
    walks = []
    for space in (source, target):
        weights = space.graph.toarray()
        roots = np.sqrt(weights.sum(axis=1))
        # The walk of 60 eigenpairs, less the trivial one; what is rougher than 20 is forgotten by then.
        values, vectors = np.linalg.eigh(weights / roots / roots[:, None])
        walks.append((vectors[:, :-1] * values[:-1] ** n_steps) @ vectors[:, :-1].T)
    expected = np.vdot(*walks) / np.linalg.norm(walks[0]) / np.linalg.norm(walks[1])
    functional_map = full_map(source.basis.eigenvectors, target.basis.eigenvectors)
    found = diffusion_overlap(functional_map, source.basis.eigenvalues, target.basis.eigenvalues, n_steps)

    assert float(found) == pytest.approx(expected, abs=0.02 if n_steps == 6 else 1e-3)
    back = diffusion_overlap(functional_map.T, target.basis.eigenvalues, source.basis.eigenvalues, n_steps)
    assert float(back) == pytest.approx(float(found), abs=1e-12)


def test_diffusion_overlap__without_a_step_is_overlap() -> None:
    source, target = spaces()
    functional_map = full_map(source.basis.eigenvectors, target.basis.eigenvectors)
    found = diffusion_overlap(functional_map, source.basis.eigenvalues, target.basis.eigenvalues, 0)
    assert float(found) == pytest.approx(float(overlap(functional_map)), abs=1e-12)


def test_diffusion_overlap__takes_many_maps_at_once() -> None:
    source, target = spaces()
    maps = np.stack([full_map(side.basis.eigenvectors, target.basis.eigenvectors) for side in (source, target)])
    eigenvalues = np.stack([side.basis.eigenvalues for side in (source, target)])
    found = diffusion_overlap(maps, eigenvalues, target.basis.eigenvalues, 8)
    assert found[1] == pytest.approx(1, abs=1e-9)
    assert found[0] == pytest.approx(
        float(diffusion_overlap(maps[0], eigenvalues[0], target.basis.eigenvalues, 8)), abs=1e-12
    )
