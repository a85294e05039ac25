"""One layer: attention and a map of each token by itself, each with a residual connection and a norm."""

from typing import Any

from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from attention_lab.attention.base import AttentionOutput
from attention_lab.attention.mask import Mask
from attention_lab.attention.positions import Positions
from attention_lab.config import ModelConfig
from attention_lab.models import rng
from attention_lab.models.layers import MultiHeadAttention, drop
from attention_lab.models.mlp import mlp
from attention_lab.models.norms import norm


class Block(nnx.Module):
  """Pre-norm: x + attention(norm(x)), then x + mlp(norm(x)). Post-norm: norm(x + attention(x)), then norm(x + mlp(x)).

  Post-norm is Vaswani et al. 2017, pre-norm Xiong et al. 2020 (https://arxiv.org/abs/2002.04745). With dropout on both
  branches.
  """

  def __init__(self, attention: MultiHeadAttention, config: ModelConfig, *, key: PRNGKeyArray, gain: float = 1.0):
    width = attention.dims.model
    self.dropout, self.post = config.dropout, config.norm_place == "post"
    self.attention_norm = norm(config.norm, width)
    self.attention = attention
    self.mlp_norm = norm(config.norm, width)
    hidden = config.mlp_width or 4 * config.width
    self.mlp = mlp(config.mlp, width, hidden, key=rng.child(key, "mlp"), gain=gain)

  def __call__(
    self, x: Float[Array, "B T D"], *, mask: Mask, positions: Positions = Positions(), key: PRNGKeyArray | None = None
  ) -> AttentionOutput:
    """The layer's output `B T D`, with the variant's losses and statistics."""
    inputs = x if self.post else self.attention_norm(x)
    attended = self.attention(inputs, mask=mask, positions=positions, key=rng.child(key, "attention"))
    x = x + drop(attended.out, self.dropout, rng.child(key, "attention_dropout"))
    return attended._replace(out=self._rest(x, rng.child(key, "mlp_dropout")))

  def extend(
    self, x: Float[Array, "B T D"], state: Any, positions: Int[Array, "B T"], lengths: Int[Array, "B"] | None
  ) -> tuple[Any, Float[Array, "B T D"]]:
    """As a call on the T tokens that follow those in `state`."""
    state, out = self.attention.extend(x if self.post else self.attention_norm(x), state, positions, lengths)
    return state, self._rest(x + out, None)

  def _rest(self, x: Array, key: PRNGKeyArray | None) -> Array:
    """What follows the first sum."""
    if self.post:
      x = self.attention_norm(x)
      return self.mlp_norm(x + drop(self.mlp(x), self.dropout, key))
    return x + drop(self.mlp(self.mlp_norm(x)), self.dropout, key)
