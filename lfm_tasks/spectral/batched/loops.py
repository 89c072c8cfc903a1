"""Compiled loops over tiles of maps: the weights of a fit, and sums over the spectra of small Gram matrices.

Eigenvalues of 128 matrices at a time, a matrix a lane: LAPACK takes 65 µs for one of 49 × 49, this 4. No lane takes a
number from another, so the bits of a matrix do not depend on its neighbors.
"""

from typing import no_type_check

import numpy as np

from lfm_tasks.compiling import compiled
from lfm_tasks.spectral.batched.simd import (
    WIDTH,
    broadcast,
    load_vector,
    multiply_columns,
    root,
    select_positive,
    store_vector,
    transpose,
)

# Matrices whose eigenvalues are found together: so many that one waits for no other's division.
LANES = 128
GROUPS = LANES // WIDTH
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


@compiled
@no_type_check
def gram_sums(maps, sums):
    """Fill in, of G = CᵀC of each map: ‖off G‖², ‖diag G‖², ‖diag G − 1‖², trace G, and Σ min(s, 1), s its eigenvalues.

    Eigenvalues below 0 count as 0.
    """
    n_maps, n_rows, size = maps.shape
    entries, packed = (
        np.empty((n_rows * size, WIDTH), dtype=np.float32),
        np.empty((size * size, WIDTH), dtype=np.float32),
    )
    rows = np.empty((4 * size, WIDTH), dtype=np.float32)
    bands, lane_sums = np.zeros((size, 2, LANES), dtype=np.float32), np.zeros((5, LANES), dtype=np.float32)
    band_rows, lane_sum_rows = bands.reshape(-1, WIDTH), lane_sums.reshape(-1, WIDTH)
    for start in range(0, n_maps, LANES):
        n_lanes = min(LANES, n_maps - start)
        for few in range(0, n_lanes, WIDTH):
            lay_out(maps, start + few, entries)
            multiply_by_itself(entries, packed)
            sum_packed(packed, lane_sum_rows, few // WIDTH)
            tridiagonalize(packed, rows, band_rows, few // WIDTH)
        settle(bands, lane_sums)
        sums[:, start : start + n_lanes] = lane_sums[:, :n_lanes]


@compiled
@no_type_check
def lay_out(maps, start, entries):
    """Lay 16 maps side by side, (row and column, lane); the last one fills what is left."""
    n_maps, n_rows, n_columns = maps.shape
    n_entries = n_rows * n_columns
    starts = np.empty(WIDTH, dtype=np.intp)
    for lane in range(WIDTH):
        starts[lane] = min(start + lane, n_maps - 1) * n_entries
    numbers = maps.reshape(-1)
    if n_entries < WIDTH:
        for entry in range(n_entries):
            for lane in range(WIDTH):
                entries[entry, lane] = numbers[starts[lane] + entry]
    else:
        for entry in range(0, n_entries, WIDTH):
            # The last ones overlap those before.
            place = min(entry, n_entries - WIDTH)
            transpose(numbers, starts, place, entries, place)


@compiled
@no_type_check
def multiply_by_itself(entries, packed):
    """Fill in the upper triangles of G = CᵀC of 16 maps that are laid side by side."""
    size = int(np.sqrt(len(packed)))
    if size < 4:
        for i in range(size):
            for j in range(i, size):
                total = broadcast(np.float32(0))
                for row in range(0, len(entries), size):
                    total = total + load_vector(entries, row + i) * load_vector(entries, row + j)
                store_vector(packed, i * size + j, total)
        return
    block = np.empty((16, WIDTH), dtype=np.float32)
    for i in range(0, size, 4):
        # The last four overlap those before.
        first = min(i, size - 4)
        for j in range(i, size, 4):
            second = min(j, size - 4)
            multiply_columns(entries, size, first, second, block)
            for a in range(4):
                for b in range(4):
                    store_vector(packed, (first + a) * size + second + b, load_vector(block, 4 * a + b))


@compiled
@no_type_check
def sum_packed(packed, sums, group):
    """Fill in the first four of `gram_sums` for 16 packed triangles."""
    size = int(np.sqrt(len(packed)))
    one, two, none = broadcast(np.float32(1)), broadcast(np.float32(2)), broadcast(np.float32(0))
    off = diagonal = apart = trace = none
    for i in range(size):
        value = load_vector(packed, i * size + i)
        diagonal = diagonal + value * value
        apart = apart + (value - one) * (value - one)
        trace = trace + value
        # Row by row: a thousand squares one after the other would lose two digits.
        squares = none
        for j in range(i + 1, size):
            value = load_vector(packed, i * size + j)
            squares = squares + value * value
        off = off + two * squares
    store_vector(sums, group, off)
    store_vector(sums, GROUPS + group, diagonal)
    store_vector(sums, 2 * GROUPS + group, apart)
    store_vector(sums, 3 * GROUPS + group, trace)


@compiled
@no_type_check
def tridiagonalize(packed, rows, bands, group):
    """Reduce 16 packed triangles to tridiagonal form by reflections: diagonals, and squares of row − 1 and row.

    A ← A − v wᵀ − w vᵀ is put off to the next step, which multiplies A by a vector anyway: one pass instead of two.
    ``rows`` is room for v and w of the step before (first two quarters), v and A v of this one (last two).
    """
    size = len(rows) // 4
    w, v, image = size, 2 * size, 3 * size
    none, two = broadcast(np.float32(0)), broadcast(np.float32(2))
    one, half, tiny = broadcast(np.float32(1)), broadcast(np.float32(0.5)), broadcast(np.float32(_TINY * _TINY))
    for row in range(4 * size):
        store_vector(rows, row, none)
    store_vector(bands, GROUPS + group, none)
    for k in range(size):
        own_v, own_w = load_vector(rows, k), load_vector(rows, w + k)
        store_vector(bands, 2 * k * GROUPS + group, load_vector(packed, k * size + k) - two * own_v * own_w)
        if k == size - 1:
            break
        length = none
        for i in range(k + 1, size):
            value = load_vector(packed, k * size + i) - (
                load_vector(rows, i) * own_w + load_vector(rows, w + i) * own_v
            )
            store_vector(rows, v + i, value)
            store_vector(rows, image + i, none)
            length = length + value * value
        first = load_vector(rows, v + k + 1)
        end = select_positive(first, none - root(length), root(length))
        store_vector(bands, (2 * k + 3) * GROUPS + group, length)
        store_vector(rows, v + k + 1, first - end)
        norm = length - first * end
        scale = select_positive(norm - tiny, one / norm, none)
        multiply(packed, rows, k + 1)
        overlap = none
        for i in range(k + 1, size):
            value = load_vector(rows, image + i) * scale
            store_vector(rows, image + i, value)
            overlap = overlap + value * load_vector(rows, v + i)
        overlap = overlap * (half * scale)
        for i in range(k + 1, size):
            store_vector(rows, i, load_vector(rows, v + i))
            store_vector(rows, w + i, load_vector(rows, image + i) - overlap * load_vector(rows, v + i))


@compiled
@no_type_check
def multiply(packed, rows, start):
    """Do the step that was put off for all rows from ``start`` on, and multiply what comes out by v.

    Two rows at a time: what they are multiplied by is read once for both.
    """
    size = len(rows) // 4
    w, v, image = size, 2 * size, 3 * size
    two = broadcast(np.float32(2))
    j = start
    if (size - j) % 2:
        j_v, j_w, j_new = load_vector(rows, j), load_vector(rows, w + j), load_vector(rows, v + j)
        value = load_vector(packed, j * size + j) - two * j_v * j_w
        store_vector(packed, j * size + j, value)
        j_sum = value * j_new
        for i in range(j + 1, size):
            value = load_vector(packed, j * size + i) - (load_vector(rows, i) * j_w + load_vector(rows, w + i) * j_v)
            store_vector(packed, j * size + i, value)
            store_vector(rows, image + i, load_vector(rows, image + i) + value * j_new)
            j_sum = j_sum + value * load_vector(rows, v + i)
        store_vector(rows, image + j, load_vector(rows, image + j) + j_sum)
        j += 1
    while j < size:
        k = j + 1
        j_v, j_w, j_new = load_vector(rows, j), load_vector(rows, w + j), load_vector(rows, v + j)
        k_v, k_w, k_new = load_vector(rows, k), load_vector(rows, w + k), load_vector(rows, v + k)
        j_value = load_vector(packed, j * size + j) - two * j_v * j_w
        both = load_vector(packed, j * size + k) - (k_v * j_w + k_w * j_v)
        k_value = load_vector(packed, k * size + k) - two * k_v * k_w
        store_vector(packed, j * size + j, j_value)
        store_vector(packed, j * size + k, both)
        store_vector(packed, k * size + k, k_value)
        j_sum, k_sum = j_value * j_new + both * k_new, k_value * k_new
        store_vector(rows, image + k, load_vector(rows, image + k) + both * j_new)
        for i in range(k + 1, size):
            i_v, i_w, i_new = load_vector(rows, i), load_vector(rows, w + i), load_vector(rows, v + i)
            j_value = load_vector(packed, j * size + i) - (i_v * j_w + i_w * j_v)
            k_value = load_vector(packed, k * size + i) - (i_v * k_w + i_w * k_v)
            store_vector(packed, j * size + i, j_value)
            store_vector(packed, k * size + i, k_value)
            store_vector(rows, image + i, load_vector(rows, image + i) + j_value * j_new + k_value * k_new)
            j_sum = j_sum + j_value * i_new
            k_sum = k_sum + k_value * i_new
        store_vector(rows, image + j, load_vector(rows, image + j) + j_sum)
        store_vector(rows, image + k, load_vector(rows, image + k) + k_sum)
        j += 2


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
