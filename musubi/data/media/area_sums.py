"""The weighted sums behind area averages, over some rows of a picture at a time, in memory that is used again."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from musubi.data.media.coverage import Coverage, Floats

Bytes = NDArray[np.uint8]


class Down:
    """Sum lines of a picture: from (height, width * channels) bytes to some of the shrunk picture's rows."""

    def __init__(self, lines: Bytes, rows: Coverage, *, most: int) -> None:
        """Prepare to sum ``most`` rows at a time."""
        width = lines.shape[1]
        self._lines, self._rows = lines, rows
        self._bytes = np.empty((most + 1, width), np.uint8)
        self._inner = np.empty((most, width), np.uint16 if rows.longest <= 257 else np.uint32)
        self._terms = np.empty((most + 1, width), np.float32)
        self._sums = np.empty((most, width), np.float32)

    def sum(self, start: int, stop: int) -> Floats:
        """Return float32 sums of shape (stop - start, width * channels); they last until the next call."""
        rows = self._rows.part(start, stop)
        sums = self._sums[: len(rows)]
        self._edges(rows, sums)
        if rows.longest:
            terms = self._terms[: len(rows)]
            np.multiply(self._whole(rows), rows.full[:, None], out=terms)
            sums += terms
        return sums

    def _edges(self, rows: Coverage, sums: Floats) -> None:
        """Set the sums to the lines that rows cover in part, each of which ends one row and begins the next."""
        if not self._rows.ragged:
            sums.fill(0)
            return
        lines, edges = self._bytes[: len(rows) + 1], self._terms[: len(rows) + 1]
        np.take(self._lines, rows.edge, axis=0, out=lines, mode="clip")
        edges[:] = lines
        np.multiply(edges[:-1], rows.lead[:, None], out=sums)
        tails = edges[1:]
        tails *= rows.tail[:, None]
        sums += tails

    def _whole(self, rows: Coverage) -> NDArray[np.unsignedinteger]:
        """Return, for each row, the sum of the lines it covers whole."""
        inner, line = self._inner[: len(rows)], self._bytes[: len(rows)]
        shortest = rows.shortest
        for number in range(rows.longest):
            np.take(self._lines, rows.first + number, axis=0, out=line, mode="clip")
            if number >= shortest:
                line *= (number < rows.count)[:, None]
            if number:
                inner += line
            else:
                inner[:] = line
        return inner


class Across:
    """Sum neighbours in lines of interleaved channels: from (rows, width * channels) to the shrunk width."""

    def __init__(self, columns: Coverage, *, width: int, channels: int, most: int) -> None:
        """Prepare to sum ``most`` lines of ``width`` pixels at a time."""
        self._columns, self._channels = columns, channels
        self._base = max(columns.shortest, 1)
        spread = len(columns) * channels
        each = np.arange(channels)
        # Windows of each length lie side by side, the shortest first.
        first = columns.first + np.maximum(columns.count - self._base, 0) * width
        self._first = (first[:, None] * channels + each).ravel()
        self._edge = (columns.edge[:, None] * channels + each).ravel()
        self._full = np.repeat(columns.full * (columns.count > 0), channels)
        self._lead, self._tail = np.repeat(columns.lead, channels), np.repeat(columns.tail, channels)
        self._windows = np.empty((most, max(columns.longest - self._base + 1, 1), width * channels), np.float32)
        self._edges = np.empty((most, spread + channels), np.float32)
        self._terms = np.empty((most, spread), np.float32)
        self._sums = np.empty((most, spread), np.float32)

    def sum(self, lines: Floats) -> Floats:
        """Return float32 sums of shape (rows, shrunk width * channels); they last until the next call."""
        sums, terms = self._sums[: len(lines)], self._terms[: len(lines)]
        if self._columns.longest:
            np.take(self._summed(lines), self._first, axis=1, out=sums, mode="clip")
            sums *= self._full
        else:
            sums.fill(0)
        if self._columns.ragged:
            edges = self._edges[: len(lines)]
            np.take(lines, self._edge, axis=1, out=edges, mode="clip")
            np.multiply(edges[:, : -self._channels], self._lead, out=terms)
            sums += terms
            np.multiply(edges[:, self._channels :], self._tail, out=terms)
            sums += terms
        return sums

    def _summed(self, lines: Floats) -> Floats:
        """Return the sums of all windows of the lengths that cells cover whole, shape (rows, lengths * width)."""
        if self._columns.longest == 1:
            return lines
        windows = self._windows[: len(lines)]
        if self._base == 1:
            windows[:, 0] = lines
        before = lines
        for length in range(2, self._columns.longest + 1):
            into = windows[:, max(length - self._base, 0)]
            beyond = (length - 1) * self._channels
            np.add(before[:, :-beyond], lines[:, beyond:], out=into[:, :-beyond])
            before = into
        return windows.reshape(len(lines), -1)
