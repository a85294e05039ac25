"""ALiBi: softmax attention with a penalty linear in distance.

Press et al. 2022, https://arxiv.org/abs/2108.12409, section 3.

    out_i = Σ_j softmax_j(q_i·k_j / √H − m_n |i − j|) v_j,   m_n = 2^(−8n/N) for head n = 1 … N, N a power of two

For other N: the slopes of the next smaller power of two, then every second slope of the next larger one, as in the
authors' code. Time O(T·S), memory O(T) by tiles; decoding state O(S). Honours every mask and a bias;
refuses nothing. Departure: |i − j| makes it usable without a causal mask, where the paper has none.
"""

import dataclasses

import jax.numpy as jnp

from attention_lab.attention.base import EVERY_MASK, Attention, Call, Claims, Dims
from attention_lab.attention.engines.flash import forward
from attention_lab.attention.families import softmax


@dataclasses.dataclass(frozen=True)
class Alibi(Attention):
  scale: float | None = None  # factor of the inner products; None = 1/√H

  def claims(self) -> Claims:
    return Claims(masks=EVERY_MASK, bias=True, encodes_positions=True)

  def init(self, key, dims: Dims):
    return {"fixed": {"per_head": {"slopes": jnp.asarray(slopes(dims.heads), jnp.float32)}}}

  def attend(self, params, q, k, v, call: Call):
    per_head = params["fixed"]["per_head"]
    return forward.attend(q, k, v, call, softmax.scale(self.scale, q), score_mod=_penalised, per_head=per_head)[0]


def _penalised(logits, pairs):
  return logits - pairs.per_head["slopes"][:, :, None, None].astype(logits.dtype) * jnp.abs(pairs.i - pairs.j)


def slopes(heads: int) -> list[float]:
  """The slope m of each head."""
  power = 2 ** (heads.bit_length() - 1)
  regular = [2 ** (-8 * (n + 1) / power) for n in range(power)]
  return regular if power == heads else regular + slopes(2 * power)[0::2][: heads - power]
