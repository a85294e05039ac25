"""An encoder that classifies whole sequences of tokens."""

import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from attention_lab.attention.mask import FULL, Mask
from attention_lab.config import ModelConfig
from attention_lab.models import keys
from attention_lab.models.dimensions import FLAG, choose
from attention_lab.models.embedding import Tokens
from attention_lab.models.layers import Linear, Output
from attention_lab.models.transformer import Transformer

POOLINGS = ("mean", "first")


class TransformerClassifier(nnx.Module):
  """Logits over C classes from the mean of the valid tokens, or from the first token."""

  def __init__(
    self,
    config: ModelConfig,
    vocabulary: int,
    max_len: int,
    classes: int,
    *,
    key: PRNGKeyArray,
    pooling: str = "mean",
    mesh: Mesh | None = None,
  ):
    self.max_len, self.pooling = max_len, choose(f"{FLAG}.pooling", pooling, POOLINGS)
    self.encoder = Transformer(config, max_len, key=keys.child(key, "encoder"), mesh=mesh)
    self.tokens = Tokens(vocabulary, config.width, key=keys.child(key, "tokens"))
    self.head = Linear((config.width,), (classes,), key=keys.child(key, "head"))

  def __call__(
    self, tokens: Int[Array, "B T"], *, valid: Bool[Array, "B T"] | None = None, key: PRNGKeyArray | None = None
  ) -> Output:
    """Logits `B C` in float32. valid: False on padding, which nobody reads and which does not count in the mean."""
    mask = FULL if valid is None else Mask(q_valid=valid, kv_valid=valid)
    x = self.tokens(tokens, self.encoder.dtype)
    hidden = self.encoder(x, mask=mask, key=keys.child(key, "encoder"))
    pooled = hidden.logits[:, 0] if self.pooling == "first" else mean(hidden.logits, valid)
    return hidden._replace(logits=self.head(pooled, jnp.float32))


def mean(x: Float[Array, "B T D"], valid: Bool[Array, "B T"] | None) -> Float[Array, "B D"]:
  """The mean over the valid tokens; zeros where there are none."""
  if valid is None:
    return jnp.mean(x, axis=1)
  total = jnp.sum(jnp.where(valid[:, :, None], x, jnp.zeros_like(x)), axis=1)
  return total / jnp.maximum(jnp.sum(valid, axis=1), 1)[:, None].astype(x.dtype)
