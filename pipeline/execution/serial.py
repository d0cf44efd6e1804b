"""Run a plan block by block, in order: the reference for threads, exchanges of halos and clusters. Begin to read here.

They differ in who computes a block and when, never in what a block is: one strip is taken after the other, each block
is computed and recorded, and what its sweeps left of partial tables is merged, saved and recorded with the strip.
"""

from __future__ import annotations

from collections.abc import Iterable

from pipeline.execution.receipt import Counts
from pipeline.execution.recorder import Recorder
from pipeline.execution.strip import Strip
from pipeline.execution.worker import PassWorker


def run_serially(worker: PassWorker, strips: Iterable[Strip], recorder: Recorder) -> Counts:
    """Compute the strips of a pass in this thread; see `execution.run.execute`, which calls it pass by pass."""
    for strip in strips:
        partials = worker.merger.nothing
        for block in strip.blocks:
            if recorder.stop.is_set():
                return worker.counts
            receipt, own = worker.run_block(block)
            recorder.record(receipt)
            if block not in strip.counted:
                partials = worker.merger.join(partials, own)
        if worker.planned.sweeps:
            recorder.record_partials(strip.uncounted, worker.merger.save(partials))
    return worker.counts
