"""What becomes of a block that is done: it is recorded, counted and shown; spare memory is given back."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from pipeline.block.plan import Pass
from pipeline.execution.ledger import BlockSet, Ledger
from pipeline.execution.process import HeapWatch
from pipeline.execution.progress import Progress
from pipeline.execution.receipt import BlockDone, Measured


class Recorder:
    """Takes the receipts and the saved partial tables of one pass; threads may hand them over at once."""

    def __init__(
        self, planned: Pass, ledger: Ledger, measured: Measured, progress: Progress, stop: threading.Event
    ) -> None:
        self.planned, self._ledger = planned, ledger
        self._measured, self._progress = measured, progress
        self._heap = HeapWatch(planned.cost.own_bytes, planned.cost.peak_bytes)
        self.stop = stop
        """Set: no block begins any more."""

    def record(self, receipt: BlockDone) -> None:
        """Take in a block whose data are written."""
        if self._ledger.record(receipt):
            self._measured.blocks += 1
            self._measured.bytes_written += self.planned.bytes_written(receipt.block)
            self._progress.advance()
            self._heap.check()

    def record_partials(self, blocks: Sequence[int], folders: list[list[str]]) -> None:
        """Take in where the partial tables of these blocks are saved."""
        self._ledger.record_partials(self.planned.number, blocks, folders)


def done_blocks(planned: Pass, ledger: Ledger) -> BlockSet:
    """Return the blocks that need not be computed again: written, and where the pass sweeps, counted in a table."""
    record = ledger.passes[planned.number]
    if not planned.sweeps:
        return record.done.copy()
    done = BlockSet()
    for block in record.counted:
        if block in record.done:
            done.add(block)
    return done
