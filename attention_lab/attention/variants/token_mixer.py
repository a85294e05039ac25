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

from attention_lab.attention.base import Dims
from attention_lab.attention.families.token_mixing import Mixer


@dataclasses.dataclass(frozen=True)
class TokenMixer(Mixer, at_least_one=("hidden",)):
  resizable: ClassVar[tuple[str, ...]] = ("hidden",)

  hidden: int = 64  # width of the layer between

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

  def mix(self, params, x, valid):
    T = x.shape[1]
    if len(params["kernel1"]) < T:
      raise ValueError(f"TokenMixer mixes {len(params['kernel1'])} places and was given {T} tokens: raise max_len")
    params = {name: leaf.astype(x.dtype) for name, leaf in params.items()}
    x = x if valid is None else jnp.where(valid[:, :, None], x, 0.0)
    hidden = jnp.einsum("bsd,sr->bdr", x, params["kernel1"][:T]) + params["bias1"][None, None]
    mixed = jnp.einsum("bdr,rt->btd", jax.nn.gelu(hidden), params["kernel2"][:, :T]) + params["bias2"][None, :T, None]
    return mixed if valid is None else jnp.where(jnp.any(valid, axis=1)[:, None, None], mixed, 0.0)
