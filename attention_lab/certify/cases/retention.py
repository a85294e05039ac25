"""Retention: linear attention that forgets at a fixed rate.

Sun et al. 2023 (Retentive Network, arXiv 2307.08621), §2.1, the recurrent form: S_t = γ S_{t−1} + k_t v_tᵀ,
out_t = S_tᵀ q_t / √H, not normalised; §2.2: γ = 1 − 2^(−5 − head). Rotation, group norm and gate are left to the
layer. Heads that share keys share γ. A key that may not be read is skipped: it does not count as time.
Without a causal mask a query reads later keys too, from the same recurrence in reversed order: a pair of tokens i < j
has the weight γ^(number of readable tokens l with i ≤ l < j) for the query i.
"""

from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, refuse_bias
from attention_lab.certify.oracle_shared import outer_write, state_read

SPECS = ("retention(chunk=4)",)
LIMITS = (("retention(chunk=1)", "retention(chunk=0)"),)


def decays(kv_heads: int) -> list[float]:
  """γ of each of K key and value heads."""
  return [1.0 - 2.0 ** (-5 - k) for k in range(kv_heads)]


def fixed(variant: Any, dims: Any) -> dict:
  """The decays of §2.2, of every key and value head."""
  del variant
  return {"decay": decays(dims.kv_heads)}


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Retention with params {"fixed": {"decay": [K]}}, which holds γ; [T, N, V]."""
  del variant
  refuse_bias(example, "retention")
  decay = params["fixed"]["decay"]
  return state_read(example, lambda g, _: decay[g], outer_write(example))
