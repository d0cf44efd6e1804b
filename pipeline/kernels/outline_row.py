"""The edges between two rows of labels, linked to the outlines that come from above.

A row is cut into runs of one label. Of each run the left edge goes up and the right edge down, so that pixels lie on
the right of their outline. On the line between two rows, edges are linked to chains; a chain that meets its own
beginning is a walk around connected pixels (by sides), or around what they enclose.
"""

from __future__ import annotations

from typing import Any

from pipeline.kernels.compile import inner, kernel
from pipeline.kernels.components import joined, root

START, END, LABEL, PART, LEFT, RIGHT, LAST = range(7)
"""Rows of a table of runs: columns, label, part; nodes at which the chains of its edges end; and the last run of the
other row that shares pixels with it."""
KEY, NEXT, OTHER = range(3)
"""Rows of a table of nodes: the vertex, the next node, and (of the ends of a chain) the node at the other end."""
FREE, NUM_FREE, NUM_ABOVE, NUM_PARTS, NUM_CLOSED = range(5)
NO = -1


@kernel
def trace(
    labels: Any,
    row: int,
    top: int,
    has_nodata: bool,
    nodata: int,
    above: Any,
    below: Any,
    nodes: Any,
    parents: Any,
    closed: Any,
    state: Any,
) -> int:
    """Link the edges above each row, from one on; return the row for which there is no room."""
    width = above.shape[1]
    while row < labels.shape[0]:
        is_short = state[NUM_FREE] < 4 * width + 8 or state[NUM_PARTS] + width > parents.size
        if is_short or state[NUM_CLOSED] + 2 * width + 2 > closed.shape[1]:
            return row
        num = _find_runs(labels, row, has_nodata, nodata, below)
        line = (top + row) * (width + 1)
        _link_down(above, state[NUM_ABOVE], below, num, line, nodes, parents, closed, state)
        _link_up(above, state[NUM_ABOVE], below, line, nodes, closed, state)
        for i in range(num):
            for k in range(6):
                above[k, i] = below[k, i]
        state[NUM_ABOVE] = num
        row += 1
    return row


@inner
def _find_runs(labels: Any, row: int, has_nodata: bool, nodata: int, runs: Any) -> int:
    num, column, width = 0, 0, labels.shape[1]
    while column < width:
        label, start = labels[row, column], column
        while column < width and labels[row, column] == label:
            column += 1
        if not (has_nodata and label == nodata):
            runs[START, num], runs[END, num], runs[LABEL, num] = start, column, label
            num += 1
    return num


@inner
def _link_down(
    above: Any, num_above: int, below: Any, num: int, line: int, nodes: Any, parents: Any, closed: Any, state: Any
) -> None:
    """Link the left edges of a row, and what lies between its runs and those above that they share pixels with."""
    for i in range(num_above):
        above[LAST, i] = NO
    low = 0
    for j in range(num):
        start, end, label = below[START, j], below[END, j], below[LABEL, j]
        while low < num_above and above[END, low] <= start:
            low += 1
        i, last = low, NO
        while i < num_above and above[START, i] < end:
            if above[LABEL, i] == label:
                if last == NO:
                    _link_first(above, i, below, j, line, nodes, state)
                else:  # along the upper edge of the run, from one above to the next
                    tail = _append(nodes, above[RIGHT, last], line + above[END, last], state)
                    tail = _append(nodes, tail, line + above[START, i], state)
                    _link(nodes, tail, above[LEFT, i], label, above[PART, i], closed, state)
                    joined(parents, above[PART, last], above[PART, i])
                above[LAST, i] = j
                last = i
            i += 1
        below[LAST, j] = last
        if last == NO:
            below[PART, j] = state[NUM_PARTS]
            parents[state[NUM_PARTS]] = state[NUM_PARTS] + 1
            state[NUM_PARTS] += 1
            _begin(nodes, below, j, j, line + start, line + end, state)
        else:
            below[PART, j] = root(parents, above[PART, last])


@inner
def _link_first(above: Any, i: int, below: Any, j: int, line: int, nodes: Any, state: Any) -> None:
    """Link the left edge of a run to the first above that it shares pixels with, or to the run before below that."""
    before = above[LAST, i]
    if before != NO:  # along the lower edge of the run above
        _begin(nodes, below, j, before, line + below[START, j], line + below[END, before], state)
        return
    head = above[LEFT, i]
    if above[START, i] != below[START, j]:
        head = _prepend(nodes, head, line + above[START, i], state)
        head = _prepend(nodes, head, line + below[START, j], state)
    below[LEFT, j] = head


@inner
def _link_up(above: Any, num_above: int, below: Any, line: int, nodes: Any, closed: Any, state: Any) -> None:
    """Link the right edges of the runs above, where nothing is linked to them yet."""
    for i in range(num_above):
        j, tail = above[LAST, i], above[RIGHT, i]
        if j == NO:  # the label ends here
            tail = _append(nodes, tail, line + above[END, i], state)
            tail = _append(nodes, tail, line + above[START, i], state)
            _link(nodes, tail, above[LEFT, i], above[LABEL, i], above[PART, i], closed, state)
        elif below[LAST, j] == i:
            if above[END, i] != below[END, j]:
                tail = _append(nodes, tail, line + above[END, i], state)
                tail = _append(nodes, tail, line + below[END, j], state)
            below[RIGHT, j] = tail


@inner
def _begin(nodes: Any, runs: Any, to_left: int, to_right: int, first: int, second: int, state: Any) -> None:
    """Begin a chain of two vertices, from the left edge of a run to the right edge of one."""
    head, tail = _new(nodes, first, state), _new(nodes, second, state)
    nodes[NEXT, head], nodes[NEXT, tail] = tail, NO
    nodes[OTHER, head], nodes[OTHER, tail] = tail, head
    runs[LEFT, to_left], runs[RIGHT, to_right] = head, tail


@inner
def _new(nodes: Any, key: int, state: Any) -> int:
    node = state[FREE]
    state[FREE] = nodes[NEXT, node]
    state[NUM_FREE] -= 1
    nodes[KEY, node] = key
    return int(node)


@inner
def _append(nodes: Any, tail: int, key: int, state: Any) -> int:
    node, head = _new(nodes, key, state), nodes[OTHER, tail]
    nodes[NEXT, tail], nodes[NEXT, node] = node, NO
    nodes[OTHER, head], nodes[OTHER, node] = node, head
    return node


@inner
def _prepend(nodes: Any, head: int, key: int, state: Any) -> int:
    node, tail = _new(nodes, key, state), nodes[OTHER, head]
    nodes[NEXT, node] = head
    nodes[OTHER, tail], nodes[OTHER, node] = node, tail
    return node


@inner
def _link(nodes: Any, tail: int, head: int, label: int, part: int, closed: Any, state: Any) -> None:
    """Link the end of a chain to the beginning of one; where it is its own, it is a walk."""
    if nodes[OTHER, tail] == head:
        closed[0, state[NUM_CLOSED]], closed[1, state[NUM_CLOSED]], closed[2, state[NUM_CLOSED]] = head, label, part
        state[NUM_CLOSED] += 1
        return
    first, last = nodes[OTHER, tail], nodes[OTHER, head]
    nodes[NEXT, tail] = head
    nodes[OTHER, first], nodes[OTHER, last] = last, first


@kernel
def count_vertices(nodes: Any, heads: Any, count: Any) -> None:
    for i in range(heads.size):
        node, num = heads[i], 0
        while node != NO:
            num += 1
            node = nodes[NEXT, node]
        count[i] = num


@kernel
def take_walks(nodes: Any, heads: Any, keys: Any, state: Any) -> None:
    """Write out the vertices of walks, and free their nodes."""
    num = 0
    for i in range(heads.size):
        node = heads[i]
        while node != NO:
            keys[num] = nodes[KEY, node]
            num += 1
            following = nodes[NEXT, node]
            nodes[NEXT, node] = state[FREE]
            state[FREE] = node
            state[NUM_FREE] += 1
            node = following
