"""How maps are computed: by tiles, in chunks of queries, over blocks of keys, as linear scans, or by a GPU's
kernels.
"""
