"""One block of one pass: what it needs, its buffers, its way through the steps, its pixels."""
