"""Token mixing, MLP-Mixer (Tolstikhin et al. 2021, https://arxiv.org/abs/2105.01601, equation 1). A control.

    out_t = Σ_r gelu(Σ_s x_s W¹_sr + b¹_r) W²_rt + b²_t

The two layers run over places in the array and are shared by all channels of the layer's input: no projections, no
attention. Time and memory O(T·hidden). Honours padding: a padded token counts as zero. Each place depends on all, so
every other mask is refused, and with them decoding, biases and cross-attention; sequences above max_len are refused.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from attention_lab.attention.base import Dims, logits_dtype
from attention_lab.attention.families.positions_refused import refuse_positions
from attention_lab.attention.families.token_mixing import Mixer


@dataclasses.dataclass(frozen=True)
class TokenMixer(Mixer):
  resizable: ClassVar[tuple[str, ...]] = ("hidden",)

  hidden: int = 64  # width of the layer between

  def __post_init__(self):
    if self.hidden < 1:
      raise ValueError(f"hidden={self.hidden} must be at least 1")

  def claims(self):
    return dataclasses.replace(super().claims(), encodes_positions=True)

  def init(self, key, dims: Dims):
    first, second = jax.random.split(key)
    L, R = dims.max_len, self.hidden
    return {
      "kernel1": jax.random.normal(first, (L, R)) * L**-0.5,
      "bias1": jnp.zeros(R),
      "kernel2": jax.random.normal(second, (R, L)) * R**-0.5,
      "bias2": jnp.zeros(L),
    }

  def attend(self, params, q, k, v, call):
    T, mask, x = call.x.shape[1], call.mask, call.x
    refuse_positions(self, call)
    if len(params["kernel1"]) < T:
      raise ValueError(f"TokenMixer mixes {len(params['kernel1'])} places and was given {T} tokens: raise max_len")
    x = x.astype(logits_dtype(x))
    own = {name: leaf.astype(x.dtype) for name, leaf in params.items()}
    x = x if mask.kv_valid is None else jnp.where(mask.kv_valid[:, :, None], x, 0.0)
    hidden = jnp.einsum("bsd,sr->bdr", x, own["kernel1"][:T]) + own["bias1"][None, None]
    mixed = jnp.einsum("bdr,rt->btd", jax.nn.gelu(hidden), own["kernel2"][:, :T]) + own["bias2"][None, :T, None]
    for valid in (mask.q_valid, None if mask.kv_valid is None else jnp.any(mask.kv_valid, axis=1, keepdims=True)):
      mixed = mixed if valid is None else jnp.where(valid[:, :, None], mixed, 0.0)
    return mixed.astype(call.x.dtype)
