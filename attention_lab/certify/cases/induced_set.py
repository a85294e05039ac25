"""Induced set attention: a few trained latents read the keys, and the queries read the latents.

Lee et al. 2019 (Set Transformer, arXiv 1810.00825), §3.1, eqs. 9 and 10 (ISAB), without its feed-forward parts; the
latents of Perceiver (Jaegle et al. 2021, arXiv 2103.03206), §3. A latent is asked and answers as one vector:
u_m = Σ_j softmax_j(latent_m·k_j / √H) v_j, out_i = Σ_m softmax_m(q_i·latent_m / √H) u_m.
"""

from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, kv_head, refuse_bias, scale
from attention_lab.certify.oracle_shared import readable_keys, softmax_read

SPECS = ("induced_set(latents=3)",)
LIMITS = (("induced_set(latents=1)", "induced_set(latents=0)"),)


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Attention with params {"per_head": {"latents": [N, latents, H]}}, [T, N, V]."""
  refuse_bias(example, "induced_set")
  heads, queries, _ = example.readable.shape
  factor = scale(variant, example)
  out = np.zeros((queries, heads, example.v.shape[2]))
  for n in range(heads):
    g, latents = kv_head(example, n), list(params["per_head"]["latents"][n])
    for t in range(queries):
      read = readable_keys(example, n, t)
      if read:
        k, v = [example.k[s, g] for s in read], [example.v[s, g] for s in read]
        gathered = [softmax_read(latent, k, v, factor) for latent in latents]
        out[t, n] = softmax_read(example.q[t, n], latents, gathered, factor)
  return out
