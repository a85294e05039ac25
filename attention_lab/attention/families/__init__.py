"""Families: base classes that variants inherit, and functions that several variants share.

`scored` normalises scores of every pair, `patterned` and `gridded` run patterns of positions by tiles, `feature_map`
and `gated_scan` are linear recurrences, `summaries` reads means of cells, `causal_cumsum` counts keys, `token_mixing`
mixes without heads.
"""
