"""Order statistics of windows of any size and shape: the set of a window's pixels as bits in the order of their ranks.

The pixels of a tile are sorted once; each has a rank of its own. A window is a set of ranks, one bit each, in 64-bit
words. As the window moves by a pixel, its rim enters and leaves (bits flip); a pointer to the word that holds the
wanted rank, and the number of pixels in the words before it, follow. Invalid pixels have no rank and cost nothing.
(After "Median Filtering is Equivalent to Sorting", Suomela 2014.)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.kernels.compile import inner, kernel


@kernel
def rank_pixels(keys: Any, usable: Any, order: Any, spare: Any, ranks: Any, ordered: Any) -> None:
    """Rank the usable of the flat keys, and list the keys in ascending order in `ordered`.

    A radix sort by bytes, lowest first; a byte that is the same everywhere is passed over. An unusable key gets the
    rank behind the last word of bits.
    """
    num = 0
    for i in range(keys.size):
        order[num] = i
        num += usable[i]
    starts = np.empty(256, np.int64)
    for shift in range(0, 8 * keys.itemsize, 8):
        starts[:] = 0
        for i in range(num):
            starts[(np.uint64(keys[order[i]]) >> np.uint64(shift)) & np.uint64(255)] += 1
        total = 0
        same = False
        for digit in range(256):
            count = starts[digit]
            starts[digit] = total
            total += count
            same |= count == num
        if same:
            continue
        for i in range(num):
            value = (np.uint64(keys[order[i]]) >> np.uint64(shift)) & np.uint64(255)
            spare[starts[value]] = order[i]
            starts[value] += 1
        order, spare = spare, order
    ranks[:] = (keys.size + 63) // 64 * 64
    for i in range(num):
        ranks[order[i]] = i
        ordered[i] = keys[order[i]]


@kernel
def slide(
    ranks: Any, runs: Any, right: Any, down: Any, fraction: Any, words: Any, counts: Any, low: Any, high: Any
) -> None:
    """Fill counts with the windows' valid pixels, low and high with the ranks between which the statistic lies.

    `ranks` is a tile; window (0, 0) is the footprint `runs` at its upper left corner. `right` and `down` are the
    footprint's rims as (pixel, enters or leaves), places in the flat tile. The window goes right and left in turn.
    """
    num_rows, num = counts.shape
    width = ranks.shape[1]
    tile = ranks.reshape(-1)
    end = words.size - 1
    words[:] = 0
    column, forward = 0, True
    pointer = before = count = 0
    for k in range(runs.shape[0]):
        row, first, length = runs[k]
        for place in range(row * width + first, row * width + first + length):
            count += flip(words, tile[place]) < end
    for row in range(num_rows):
        if row:
            change = move(tile, down, (row - 1) * width + column, words, pointer, end)
            before, count = before + change[0], count + change[1]
        for step in range(num):
            if step and forward:
                change = move(tile, right, row * width + column, words, pointer, end)
                before, count = before + change[0], count + change[1]
                column += 1
            elif step:
                column -= 1
                change = move(tile, right, row * width + column, words, pointer, end)
                before, count = before - change[0], count - change[1]
            counts[row, column] = count
            if count == 0:
                low[row, column] = high[row, column] = 0
                continue
            position = (count - 1) * fraction
            rank = np.int64(position)
            pointer, before = follow(words, pointer, before, rank)
            read(words, pointer, rank - before, position > rank, low, high, row, column)
        forward = not forward


@inner
def flip(words: Any, rank: Any) -> Any:
    """Let a pixel enter the window, or leave it, and return its word."""
    word = np.uint64(rank) >> np.uint64(6)
    words[word] ^= np.uint64(1) << (np.uint64(rank) & np.uint64(63))
    return np.int64(word)


@inner
def move(tile: Any, rim: Any, place: Any, words: Any, pointer: Any, end: Any) -> Any:
    """Move the window along its rim, from `place` or back to it.

    Returns how many pixels more there are before the pointer, and before the end, after a move from `place`.
    """
    before = count = 0
    for i in range(rim.shape[0]):
        enters = flip(words, tile[np.uint64(place + rim[i, 0])])
        leaves = flip(words, tile[np.uint64(place + rim[i, 1])])
        before += (enters < pointer) - (leaves < pointer)
        count += (enters < end) - (leaves < end)
    return before, count


@inner
def follow(words: Any, pointer: Any, before: Any, rank: Any) -> Any:
    """Return the word that holds a rank, and the number of pixels in the words before it."""
    while before > rank:
        pointer -= 1
        before -= count_bits(words[pointer])
    here = count_bits(words[pointer])
    while before + here <= rank:
        before += here
        pointer += 1
        here = count_bits(words[pointer])
    return pointer, before


@inner
def read(words: Any, pointer: Any, skip: Any, between: Any, low: Any, high: Any, row: Any, column: Any) -> None:
    """Read the rank of the bit after `skip` others of a word; and of the next bit, if the statistic lies between."""
    bits = words[pointer]
    for _ in range(skip):
        bits &= bits - np.uint64(1)
    low[row, column] = 64 * pointer + lowest_bit(bits)
    if between:
        bits &= bits - np.uint64(1)
        while not bits:
            pointer += 1
            bits = words[pointer]
    high[row, column] = 64 * pointer + lowest_bit(bits)


@inner
def count_bits(word: Any) -> Any:
    """Return how many bits are 1; LLVM knows this form and makes one instruction of it."""
    word = word - ((word >> np.uint64(1)) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((word * np.uint64(0x0101010101010101)) >> np.uint64(56))


@inner
def lowest_bit(word: Any) -> Any:
    """Return the position of the lowest bit that is 1."""
    return count_bits((word & (np.uint64(0) - word)) - np.uint64(1))


@kernel
def interpolate(low: Any, high: Any, counts: Any, usable: Any, fraction: Any, rule: Any, out: Any, target: Any) -> None:
    """Write a statistic of fraction f: at position (n - 1) f, between the values low and high of the ranks around it.

    `usable` is 1 for valid pixels, from the first window's first one on; results go to the elements `target` of `out`.
    """
    plane, top, begin, step = target.plane, target.top, target.left, target.step
    centre, min_valid = rule.column * rule.lanes, rule.min_valid
    num_rows, num = low.shape
    results = np.empty(num, np.float64)
    for i in range(num_rows):
        a_row, b_row, count_row = low[i], high[i], counts[i]
        for c in range(num):
            position = (count_row[c] - 1) * fraction
            results[c] = between(np.float64(a_row[c]), np.float64(b_row[c]), position - np.floor(position))
        if rule.fill_invalid:
            for c in range(num):
                results[c] = results[c] if count_row[c] >= min_valid else np.nan
        else:
            ok = usable[rule.row + i, centre : centre + num]
            for c in range(num):
                results[c] = results[c] if (count_row[c] >= min_valid) & (ok[c] != 0) else np.nan
        to = out[plane, top + i, begin : begin + (num - 1) * step + 1]
        for c in range(num):
            to[c * step] = results[c]


@inner
def between(a: Any, b: Any, t: Any) -> Any:
    """Interpolate linearly, by numpy's expression; beside an infinity the result is infinite.

    All cases are computed: without branches the loop takes several pixels at a time. A step that overflows is taken
    by halves.
    """
    step = b - a
    share = 1.0 - t
    result = a + step * t if t < 0.5 else b - step * share
    result = a * share + b * t if step == np.inf else result
    result = a + b if (np.abs(a) == np.inf) | (np.abs(b) == np.inf) else result
    return a if (t == 0.0) | (a == b) else result
