"""Arrays in, arrays out: numba and numpy. They know regions (`model.region`), and neither rasters nor files.

House rules (`kernels.compile` says why, and what each costs):

- `@kernel` is called from Python and compiled into numba's cache; it allocates, and calls `@inner` functions, in which
  its loops stand. These own no array: no references are counted. `@owning` ones return arrays, or parts of them.
- IEEE arithmetic: no `fastmath`, no `parallel`. A fused multiply-add is `fma`, said outright. So a pixel's result is
  one expression of what it reads: the same bits on every path, for every block.
- What travels between kernels together is a NamedTuple, which numba takes as it is.
- A driver in Python stands before each kernel: it knows frames, dtypes and what is wanted, and `scratch_bytes` beside
  it bounds what both allocate.

Words: a **lane** is one of the interleaved bands of ``y, x, band``; a **vector** is what the processor computes at
once; a **strip** is a stretch of every row, a **slab** some whole rows, a **tile** a rectangle, a **batch** some
neighbours of one row; a **part** is rows of a strip that are computed together; a `Place` says where it lies in arrays.
"""
