"""One vector of a whole sequence."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from attention_lab.attention import spec
from attention_lab.attention.mask import Mask
from attention_lab.config import ModelConfig
from attention_lab.models import config_checks
from attention_lab.models.functional import Undecayed
from attention_lab.models.layers import mlp, named_key, norm
from attention_lab.models.multi_head_attention import MultiHeadAttention


class AttentionPooling(nnx.Module):
  """A learned query reads all tokens by softmax attention; then x + mlp(norm(x)).

  Pooling by multi-head attention (Lee et al. 2019, https://arxiv.org/abs/1810.00825, section 3.2) with one seed, in the
  form of Zhai et al. 2022 (https://arxiv.org/abs/2106.04560, "MAP head").
  """

  def __init__(self, config: ModelConfig, *, key: PRNGKeyArray, mesh: Mesh | None = None):
    dims = config_checks.dims(config, 1)._replace(kv_heads=config.heads)
    shape, softmax = (1, 1, dims.model), spec.parse("softmax")
    self.probe = Undecayed(dims.model**-0.5 * jax.random.normal(named_key(key, "probe"), shape))
    self.attention = MultiHeadAttention(softmax, dims, key=named_key(key, "attention"), mesh=mesh)
    self.norm = norm(config.norm, dims.model)
    self.mlp = mlp(config.mlp, dims.model, config.mlp_width or 4 * dims.model, key=named_key(key, "mlp"))

  def __call__(self, x: Float[Array, "B T D"], valid: Bool[Array, "B T"] | None = None) -> Float[Array, "B D"]:
    """valid: False on tokens that are not read."""
    probe = jnp.broadcast_to(self.probe[...].astype(x.dtype), (x.shape[0], 1, x.shape[2]))
    read = self.attention(probe, y=x, mask=Mask(kv_valid=valid)).out
    return (read + self.mlp(self.norm(read)))[:, 0]


def mean(x: Float[Array, "B T D"], valid: Bool[Array, "B T"] | None = None) -> Float[Array, "B D"]:
  """The mean over the valid tokens; zeros where there are none."""
  if valid is None:
    return jnp.mean(x, axis=1)
  total = jnp.sum(jnp.where(valid[:, :, None], x, jnp.zeros_like(x)), axis=1)
  return total / jnp.maximum(jnp.sum(valid, axis=1), 1)[:, None].astype(x.dtype)


def last(x: Float[Array, "B T D"], valid: Bool[Array, "B T"] | None = None) -> Float[Array, "B D"]:
  """The last valid token; the first one where there are none."""
  if valid is None:
    return x[:, -1]
  index = jnp.max(jnp.where(valid, jnp.arange(x.shape[1], dtype=jnp.int32)[None], 0), axis=1)
  return jnp.take_along_axis(x, index[:, None, None], axis=1)[:, 0]
