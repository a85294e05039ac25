"""Generated sequences that each ask for one mechanism, so small that a tiny decoder learns them from nothing.

  generation.generate(name, {"length": 64}, longest=256) -> Dataset     name: one of generation.MECHANISMS

`recalls` and `sequences` are in the manner of MAD (Poli et al. 2024, "Mechanistic Design and Scaling of Hybrid
Architectures", section 3), with induction heads and parity; `needles` in that of RULER (Hsieh et al. 2024, section 3),
on tokens in place of English. Each has a solver that reads nothing but the tokens.
"""
