"""Sums and extrema of one block by slot: the arrays that the kernels of `label_sums` fill, and their scale."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.kernels.digit_sum import fold, fold_in_order
from pipeline.kernels.exact_sum import ExactSums, reorder, widen, zeros
from pipeline.kernels.label_digits import (
    MOST_PIXELS,
    NARROW,
    NO_BITS,
    NUM_SQUARES,
    NUM_SUMS,
    SMALL,
    SPAN,
    SQUARE_SHIFTS,
    SUM_SHIFTS,
    WIDE,
    shift_digits,
    widen_bits,
)
from pipeline.kernels.label_runs import RUN, grow, with_room
from pipeline.kernels.label_sums import Digits, RunBuffers, Totals, Where, add_outliers, add_slab

_COUNT_BITS = 34
"""Bits that a sum may have more than its values: a block has fewer than 2^33 pixels."""
_UNITS = (-1000, 940)
"""Units by which values can be scaled without overflow."""
_NO_MASK = np.ones((0, 0, 0), bool)


class BlockSums:
    """Counts of invalid values, sums of the powers up to `power` and extrema, by slot and band.

    Values come slab by slab. Floating-point values are scaled by a unit that suits the slab; where it changes,
    the digits are carried over to exact words first, so the sums do not depend on the units.
    """

    def __init__(self, dtype: np.dtype, bands: int, power: int, extrema: bool) -> None:
        self.dtype, self.bands, self.power = dtype, bands, power
        self.floating = dtype.kind == "f"
        self.split = WIDE if dtype.itemsize == 8 else NARROW
        if self.floating:
            self.split = NARROW
        elif dtype.itemsize <= 2:
            self.split = SMALL
        self.units = np.zeros(bands, np.int64)
        self.bits = np.full((bands, 2), NO_BITS, np.int64)
        self.outliers = np.zeros(bands, bool)
        self.pixels = 0  # what no slot has more of in its digits
        self.invalid = np.zeros((0, bands), np.int64)
        self.found_invalid = np.zeros(1, bool)
        self.low = np.zeros((0, bands), dtype)
        self.high = np.zeros((0, bands), dtype)
        self.extrema = extrema
        self.sums, self.squares = self._digits(0)
        self.sum_words, self.square_words = zeros(0), zeros(0)
        low, high, usable = np.zeros((3, RUN), np.int64)
        self.buffers = RunBuffers(low, high, usable, np.zeros(RUN, dtype))

    def _digits(self, num: int) -> tuple[np.ndarray, np.ndarray]:
        sums = np.zeros((num if self.power > 0 else 0, self.bands, NUM_SUMS[self.split]), np.int64)
        squares = np.zeros((num if self.power > 1 else 0, self.bands, NUM_SQUARES[self.split]), np.int64)
        return sums, squares

    def add(
        self, values: np.ndarray, valid: np.ndarray | None, where: Where, runs: np.ndarray, borne: np.ndarray, num: int
    ) -> None:
        """Add a slab whose runs use the first `num` slots; those so far, with it, are borne by so many pixels each.

        A slab has fewer pixels than the digits can take, `MOST_PIXELS`.
        """
        self._reserve(num)
        if self.pixels == 0 and self.floating and self.power > 0:
            for band in range(self.bands):
                self._use_unit(band, *self._unit_for(values, where, runs, band))
        pixels = int(runs[:, 2].sum())
        if self.pixels + pixels > MOST_PIXELS[self.split]:
            self.pixels = min(self.pixels, int(borne.max()))
        if self.pixels + pixels > MOST_PIXELS[self.split]:
            self._carry()
        mask = _NO_MASK if valid is None else valid
        begin = np.zeros(self.bands, np.int64)
        done, band = 0, 0
        while done < len(runs):
            digits = Digits(self.split, self.dtype.kind == "u", self.outliers, np.ldexp(1.0, -self.units))
            totals = Totals(self.found_invalid, self.invalid, self.sums, self.squares, self.low, self.high)
            self.pixels += pixels
            done, band = add_slab(values, mask, where, runs, (done, band), digits, self.buffers, totals)
            if done < len(runs):
                self._rescale(values, where, runs[done:], band)
                begin[band] = done
        for band in np.flatnonzero(self.outliers).tolist():
            self._add_outliers(values, where, runs[begin[band] :], band)

    def _reserve(self, num: int) -> None:
        """Make room for `num` slots, as much in every array."""
        if num <= len(self.invalid):
            return
        room = max(num, 2 * len(self.invalid))
        more = room - len(self.invalid)
        if self.found_invalid[0]:
            grow(self.invalid, more)
        else:  # memory that was never touched costs nothing
            self.invalid = np.zeros((room, self.bands), np.int64)
        if self.power > 0:
            self.sums = with_room(self.sums, room)
        if self.power > 1:
            self.squares = with_room(self.squares, room)
        if self.extrema:
            info: Any = np.finfo(self.dtype) if self.floating else np.iinfo(self.dtype)
            grow(self.low, more, info.max)
            grow(self.high, more, info.min)

    def _rescale(self, values: np.ndarray, where: Where, runs: np.ndarray, band: int) -> None:
        """Choose the unit of a band anew, so that it suits the values under the runs and those before."""
        split, unit, has_outliers = self._unit_for(values, where, runs, band)
        shift = int(self.units[band]) - unit
        if split != self.split or not shift_digits(self.sums, self.squares, band, shift):
            self._carry()
        self._use_unit(band, split, unit, has_outliers)

    def _unit_for(self, values: np.ndarray, where: Where, runs: np.ndarray, band: int) -> tuple[int, int, bool]:
        """Return the split and unit that suit a band's values under the runs and those looked at before, and whether
        some are outliers even so."""
        bits = self.bits[band]
        widen_bits(values, where, runs, band, bits)
        lowest, highest = int(bits[0]), int(bits[1])
        span = highest - lowest
        if span < 0:  # zeros have no bits
            return self.split, int(self.units[band]), False
        split = WIDE if span > SPAN[NARROW] else self.split
        # where the digits can hold all, with more room below: values go on towards 0 more often than up
        unit = lowest - 3 * (SPAN[split] - span) // 4 if span <= SPAN[split] else highest - SPAN[WIDE]
        unit = min(max(unit, _UNITS[0]), _UNITS[1])
        return split, unit, lowest < unit or highest > unit + SPAN[split]

    def _use_unit(self, band: int, split: int, unit: int, has_outliers: bool) -> None:
        self.units[band], self.outliers[band] = unit, has_outliers
        if split != self.split:  # no digit is in use
            self.split = split
            self.sums, self.squares = self._digits(len(self.invalid))

    def _carry(self) -> None:
        """Carry the digits over to the words."""
        if self.pixels == 0:
            return
        self.pixels = 0
        if self.power > 0:
            lowest, highest = self.units.min(), self.units.max() + SPAN[self.split]
            self.sum_words = self._words(self.sum_words, lowest, highest)
            fold(self.sums, self._sum_shifts - 64 * self.sum_words.low, self.sum_words.words)
        if self.power > 1:
            self.square_words = self._words(self.square_words, 2 * lowest, 2 * highest)
            fold(self.squares, self._square_shifts - 64 * self.square_words.low, self.square_words.words)

    @property
    def _sum_shifts(self) -> np.ndarray:
        shifts: np.ndarray = self.units[:, None] + np.array(SUM_SHIFTS[: self.sums.shape[2]])
        return shifts

    @property
    def _square_shifts(self) -> np.ndarray:
        shifts: np.ndarray = 2 * self.units[:, None] + np.array(SQUARE_SHIFTS[: self.squares.shape[2]])
        return shifts

    def _words(self, words: ExactSums, lowest: int, highest: int) -> ExactSums:
        """Return the words with room for all slots, from a lowest bit up to sums of values up to a highest bit."""
        grow(words.words, len(self.invalid) * self.bands - len(words.words))
        return widen(words, int(lowest) // 64, -(-(int(highest) + _COUNT_BITS) // 64))

    def _add_outliers(self, values: np.ndarray, where: Where, runs: np.ndarray, band: int) -> None:
        widen_bits(values, where, runs, band, self.bits[band])
        lowest, highest = self.bits[band]
        self.sum_words = self._words(self.sum_words, lowest, highest)
        squares, low = np.empty((0, 1), np.uint64), 0
        if self.power > 1:
            self.square_words = self._words(self.square_words, 2 * lowest, 2 * highest)
            squares, low = self.square_words.words, self.square_words.low
        scales = np.ldexp(1.0, -self.units)
        add_outliers(values, where, runs, band, scales, self.sum_words.words, squares, self.sum_words.low, low)

    def results(self, order: np.ndarray) -> tuple[np.ndarray | None, ExactSums | None, ExactSums | None]:
        """Return counts of invalid values (None: none is), sums and sums of squares of the slots in this order."""
        if len(self.sum_words.words):
            self._carry()
            sums = reorder(self.sum_words, order, self.bands) if self.power > 0 else None
            squares = reorder(self.square_words, order, self.bands) if self.power > 1 else None
        else:  # no digit was carried over: the usual way
            sums = fold_in_order(self.sums, self._sum_shifts, order) if self.power > 0 else None
            squares = fold_in_order(self.squares, self._square_shifts, order) if self.power > 1 else None
        return self.invalid[order] if self.found_invalid[0] else None, sums, squares
