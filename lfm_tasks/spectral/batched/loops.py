"""Compiled loops over tiles of maps: the weights of a fit, and sums over the spectra of small Gram matrices.

Eigenvalues of 128 matrices at a time, a matrix a lane: LAPACK takes 65 µs for one of 49 × 49, this 10. No lane takes a
number from another, so the bits of a matrix do not depend on its neighbors.
"""

from typing import no_type_check

import numpy as np
from jaxtyping import Float32

from lfm_tasks.compiling import compiled

# Matrices whose eigenvalues are found together: so many that one waits for no other's division.
LANES = 128
# Sweeps that one eigenvalue may take; usually two.
_MOST_SWEEPS = 60
# Off-diagonal squares below this share of the diagonals' product, or of the largest one's square, count as zero.
_NEGLIGIBLE = 1e-14
_TINY = 1e-15


@compiled
@no_type_check
def weigh(spread, numbers, poles):
    """Multiply f B (NA)ᵀ, real parts left and imaginary parts right, by 1/(μ_i − Λ) in place.

    ``numbers``: (map, row, 2), μ as float32 and what that leaves over; ``poles``: (3, pole), the same of the real
    parts, and the imaginary parts. Near a pole the digits of the first two cancel, and the rest counts.
    """
    n_maps, n_rows, _ = spread.shape
    n_poles = poles.shape[1]
    high, low, height = poles[0].copy(), poles[1].copy(), poles[2].copy()
    for one in range(n_maps):
        for row in range(n_rows):
            number, rest = numbers[one, row, 0], numbers[one, row, 1]
            reals, imaginaries = spread[one, row, :n_poles], spread[one, row, n_poles:]
            for pole in range(n_poles):
                gap = (number - high[pole]) + (rest - low[pole])
                scale = np.float32(1) / (gap * gap + height[pole] * height[pole])
                real, imaginary = reals[pole], imaginaries[pole]
                reals[pole] = (real * gap - imaginary * height[pole]) * scale
                imaginaries[pole] = (imaginary * gap + real * height[pole]) * scale


@compiled
@no_type_check
def cross_sums(maps, rows, columns, crossed):
    """Fill in Σ C_ij² (r_i − c_j)² of every map; rows of C one after the other, so the sums are in one order."""
    n_maps, n_rows, n_columns = maps.shape
    for one in range(n_maps):
        sums = np.zeros(n_columns, dtype=np.float32)
        for i in range(n_rows):
            entries, value = maps[one, i], rows[one, i]
            for j in range(n_columns):
                product = entries[j] * (value - columns[j])
                sums[j] += product * product
        total = np.float32(0)
        for j in range(n_columns):
            total += sums[j]
        crossed[one] = total


def gram_sums(maps: Float32[np.ndarray, "maps target source"], sums: Float32[np.ndarray, "5 maps"]) -> None:
    """Fill in, of G = CᵀC of each map: ‖off G‖², ‖diag G‖², ‖diag G − 1‖², trace G, and Σ min(s, 1), s its eigenvalues.

    Eigenvalues below 0 count as 0.
    """
    for start in range(0, len(maps), LANES):
        some = maps[start : start + LANES]
        with np.errstate(invalid="ignore", over="ignore"):  # sums that are not finite say which map it is
            # Of one array with itself numpy takes half the product, at less than half the speed.
            grams = np.matmul(some.swapaxes(1, 2), some.copy())
        _sums_of(grams, sums[:, start : start + LANES])


@compiled
@no_type_check
def _sums_of(grams, sums):
    """Fill in the sums of up to 128 Gram matrices, of which only the upper triangles are read."""
    n_maps, size, _ = grams.shape
    packed = np.zeros((size, size, LANES), dtype=np.float32)
    bands, of_lanes = np.empty((size, 2, LANES), dtype=np.float32), np.empty((5, LANES), dtype=np.float32)
    pack(grams, packed, of_lanes)
    tridiagonalize(packed, bands)
    settle(bands, of_lanes)
    sums[:] = of_lanes[:, :n_maps]


@compiled
@no_type_check
def pack(grams, packed, sums):
    """Lay up to 128 upper triangles side by side, (row, column, lane), and fill in the first four of `gram_sums`."""
    n_lanes, size, _ = grams.shape
    totals = np.zeros((5, LANES), dtype=np.float32)
    one, two = np.float32(1), np.float32(2)
    for i in range(size):
        # Few matrices at a time: rows of all of them would lie on more pages than a core keeps track of.
        for few in range(0, n_lanes, 16):
            for j in range(i, size):
                for lane in range(few, min(few + 16, n_lanes)):
                    packed[i, j, lane] = grams[lane, i, j]
        for lane in range(LANES):
            value = packed[i, i, lane]
            totals[1, lane] += value * value
            totals[2, lane] += (value - one) * (value - one)
            totals[3, lane] += value
            totals[4, lane] = 0
        for j in range(i + 1, size):
            for lane in range(LANES):
                totals[4, lane] += packed[i, j, lane] * packed[i, j, lane]
        # Row by row: a thousand squares one after the other would lose two digits.
        for lane in range(LANES):
            totals[0, lane] += two * totals[4, lane]
    sums[:4] = totals[:4]


@compiled
@no_type_check
def tridiagonalize(packed, bands):
    """Reduce upper triangles to tridiagonal form by reflections: diagonals, and squares of row − 1 and row.

    A ← A − v wᵀ − w vᵀ is put off to the next step, which multiplies A by a vector anyway: one pass instead of two.
    """
    size = len(packed)
    # Laid out here, in one array: the compiler then sees that rows do not overlap, and makes vector code.
    rows, state = np.zeros((size, 4, LANES), dtype=np.float32), np.empty((3, LANES), dtype=np.float32)
    two = np.float32(2)
    for k in range(size):
        # rows: v and w of the step before, v and A v of this one
        for lane in range(LANES):
            bands[k, 0, lane] = packed[k, k, lane] - two * rows[k, 0, lane] * rows[k, 1, lane]
            state[0, lane] = 0
        if k == size - 1:
            break
        for i in range(k + 1, size):
            for lane in range(LANES):
                turned = rows[i, 0, lane] * rows[k, 1, lane] + rows[i, 1, lane] * rows[k, 0, lane]
                value = packed[k, i, lane] - turned
                rows[i, 2, lane], rows[i, 3, lane] = value, 0
                state[0, lane] += value * value
        for lane in range(LANES):
            length, first = state[0, lane], rows[k + 1, 2, lane]
            root = np.sqrt(length)
            image = -root if first > 0 else root
            bands[k + 1, 1, lane] = length
            rows[k + 1, 2, lane] = first - image
            half = length - first * image
            state[1, lane] = np.float32(1) / half if half > np.float32(_TINY) * np.float32(_TINY) else np.float32(0)
        for j in range(k + 1, size):
            for lane in range(LANES):
                value = packed[j, j, lane] - two * rows[j, 0, lane] * rows[j, 1, lane]
                packed[j, j, lane] = value
                state[2, lane] = value * rows[j, 2, lane]
            for i in range(j + 1, size):
                for lane in range(LANES):
                    turned = rows[i, 0, lane] * rows[j, 1, lane] + rows[i, 1, lane] * rows[j, 0, lane]
                    value = packed[j, i, lane] - turned
                    packed[j, i, lane] = value
                    rows[i, 3, lane] += value * rows[j, 2, lane]
                    state[2, lane] += value * rows[i, 2, lane]
            for lane in range(LANES):
                rows[j, 3, lane] += state[2, lane]
        for lane in range(LANES):
            state[2, lane] = 0
        for i in range(k + 1, size):
            for lane in range(LANES):
                rows[i, 3, lane] *= state[1, lane]
                state[2, lane] += rows[i, 3, lane] * rows[i, 2, lane]
        for lane in range(LANES):
            state[2, lane] *= np.float32(0.5) * state[1, lane]
        for i in range(k + 1, size):
            for lane in range(LANES):
                rows[i, 0, lane] = rows[i, 2, lane]
                rows[i, 1, lane] = rows[i, 3, lane] - state[2, lane] * rows[i, 2, lane]


@compiled
@no_type_check
def settle(bands_of_all, sums):
    """Find eigenvalues by QL without square roots (Pal, Walker, Kahan); fill in the last of `gram_sums`.

    NaN where that does not end.
    """
    size = len(bands_of_all)
    bands, state = np.empty((size, 2, LANES), dtype=np.float32), np.empty((7, LANES), dtype=np.float32)
    sine, lead, product, shift, floor, is_open = state[1], state[2], state[3], state[4], state[5], state[6]
    one, tiny, none = np.float32(1), np.float32(_TINY), np.float32(0)
    for lane in range(LANES):
        largest = np.float32(0)
        for i in range(size):
            bands[i, 0, lane], bands[i, 1, lane] = bands_of_all[i, 0, lane], bands_of_all[i, 1, lane]
            largest = max(largest, abs(bands[i, 0, lane]))
        floor[lane] = np.float32(0.1 * _NEGLIGIBLE) * largest * largest
    for last in range(size - 1, 0, -1):
        for sweep in range(_MOST_SWEEPS + 1):
            n_open = np.float32(0)
            for lane in range(LANES):
                product_of_both = abs(bands[last, 0, lane] * bands[last - 1, 0, lane])
                edge = np.float32(_NEGLIGIBLE) * product_of_both + floor[lane]
                is_open[lane] = one if bands[last, 1, lane] > edge else none
                n_open += is_open[lane]
            if n_open == 0:
                break
            if sweep == _MOST_SWEEPS:
                for lane in range(LANES):
                    bands[last, 0, lane] = np.nan if is_open[lane] else bands[last, 0, lane]
                break
            for lane in range(LANES):
                below = np.sqrt(bands[last, 1, lane]) + tiny
                slope = (bands[last - 1, 0, lane] - bands[last, 0, lane]) / (np.float32(2) * below)
                root = np.sqrt(slope * slope + one)
                shift[lane] = bands[last, 0, lane] - below / (slope + root if slope >= 0 else slope - root)
                first = bands[0, 0, lane] - shift[lane]
                lead[lane] = first if abs(first) > tiny else tiny
                product[lane] = lead[lane] * lead[lane]
                sine[lane] = 0
            for i in range(last):
                for lane in range(LANES):
                    square, value = bands[i + 1, 1, lane], bands[i + 1, 0, lane]
                    whole = product[lane] + square
                    bands[i, 1, lane] = sine[lane] * whole if is_open[lane] > none else bands[i, 1, lane]
                    inverse = one / whole
                    turned, rest = product[lane] * inverse, square * inverse
                    ahead = turned * (value - shift[lane]) - rest * lead[lane]
                    bands[i, 0, lane] = lead[lane] + (value - ahead) if is_open[lane] > none else bands[i, 0, lane]
                    # Never 0, so that nothing is divided by it: far below what a float32 eigenvalue resolves.
                    ahead = ahead if abs(ahead) > tiny else tiny
                    product[lane] = ahead * ahead / turned
                    sine[lane], lead[lane] = rest, ahead
            for lane in range(LANES):
                if is_open[lane] > none:
                    bands[last, 1, lane] = sine[lane] * product[lane]
                    bands[last, 0, lane] = shift[lane] + lead[lane]
    sums[4] = 0
    for i in range(size):
        for lane in range(LANES):
            sums[4, lane] += min(max(bands[i, 0, lane], none), one)
