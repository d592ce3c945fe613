"""Machine code for a CPU without a compiler: kernels written as LLVM IR, made by llvmlite at the first use.

Owns what the kernels of all operations have in common: emission, compilation and its cache, threads, and the program
that runs kernels one after the other. Knows no operation; each has its kernels in a `native` module of its own. Needs
Linux on x86-64 with AVX2 or AVX-512 VNNI; elsewhere `Host` raises a RuntimeError that says why, and operations fall
back to torch.

A kernel is a pair of functions, over a block of int64 words (addresses, sizes) that only it understands:

    NAME_pieces(args) -> i64      into how many pieces its work is cut now
    NAME(args, piece)             does one of them

Sizes that change from step to step are reached through addresses in the block, so that the block of a layer is written
once. What a piece computes never depends on the other pieces, nor on which thread takes it. Attention's bits do
depend on how a prompt is cut into chunks (`paged_attention.native`).
"""
