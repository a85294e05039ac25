"""Engines: the programs that compute attention, below the families of variants that call them.

`flash` runs softmax attention by tiles, `chunked` any equation of a row in chunks of queries, `block_sparse` softmax
over listed blocks of keys, `linear_scan` and `gated_delta_scan` recurrences, `gpu_kernels` the fused kernels of others.
"""
