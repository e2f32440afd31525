"""Triton kernels of the operations. They run on CUDA, and in Triton's interpreter on a CPU (for tests).

Shape legend: N tokens, n streams, C width. Maps of a token are a table of 2 + n rows and n columns: row 0 is
pre, row 1 is post, row 2 + o is what output stream o takes of each stream (H_res as [out, in]). HC and mHC
have the same table; they differ in what a column sees (HC: its own stream, mHC: all of them).

Traffic in the kernels' docstrings is in units of C times the bytes of a stream's entry for each token; maps,
parameters and partial sums are left out.
"""
