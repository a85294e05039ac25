"""BERT: an encoder that learns by restoring masked tokens, and by telling whether two texts follow each other.

Devlin et al. 2019 (https://arxiv.org/abs/1810.04805, section 3.1, and the authors' code for the heads).
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from attention_lab.attention.mask import FULL, Mask
from attention_lab.config import ModelConfig
from attention_lab.models import rng
from attention_lab.models.chunked_cross_entropy import Head
from attention_lab.models.embedding import embedded, tables
from attention_lab.models.layers import Linear, Output
from attention_lab.models.norms import norm
from attention_lab.models.transformer import Transformer

TYPES = 2  # of segments: a token of the first text, or of the second


class Masked(nnx.Module):
  """norm(gelu(W·x + b)), and the bias of the output map, whose kernel is the embedding table."""

  def __init__(self, config: ModelConfig, vocabulary: int, *, key: PRNGKeyArray):
    self.dense = Linear((config.width,), (config.width,), key=rng.child(key, "dense"))
    self.norm = norm(config.norm, config.width)
    self.bias = nnx.Param(jnp.zeros(vocabulary))

  def __call__(self, hidden: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    return self.norm(jax.nn.gelu(self.dense(hidden), approximate=True))


class Bert(nnx.Module):
  """Hidden states of token sequences, and the two heads of pre-training.

  `encoder/…`, `tokens/…` and `types/…` are also the parameters of a `TransformerClassifier` with `types=2` and
  otherwise this configuration, so that they carry over by path. As published are `norm_place=post`,
  `positions=learned` and `dropout=0.1`.
  """

  def __init__(
    self, config: ModelConfig, vocabulary: int, max_len: int, *, key: PRNGKeyArray, mesh: Mesh | None = None
  ):
    self.max_len, self.vocabulary, self.mesh = max_len, vocabulary, mesh
    self.encoder = Transformer(config, max_len, key=rng.child(key, "encoder"), embedding_norm=True, mesh=mesh)
    self.tokens, self.types = tables(vocabulary, config.width, TYPES, key=key)
    self.masked = Masked(config, vocabulary, key=rng.child(key, "masked"))
    self.pooler = Linear((config.width,), (config.width,), key=rng.child(key, "pooler"))
    self.next = Linear((config.width,), (2,), key=rng.child(key, "next"))

  def __call__(
    self,
    tokens: Int[Array, "B T"],
    *,
    valid: Bool[Array, "B T"] | None = None,
    types: Int[Array, "B T"] | None = None,
    key: PRNGKeyArray | None = None,
  ) -> Output:
    """Hidden states `B T D` in place of logits. valid: False on padding; types: 0 or 1, None = all 0."""
    mask = FULL if valid is None else Mask(q_valid=valid, kv_valid=valid)
    x = embedded(self.tokens, self.types, tokens, types, self.encoder.dtype)
    return self.encoder(x, mask=mask, key=rng.child(key, "encoder"))

  def transform(self, hidden: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    """Hidden states as `masked_head` wants them."""
    return self.masked(hidden)

  def masked_head(self) -> Head:
    """The map from `transform(hidden)` to logits over tokens; for `vocabulary.nats`, weights 0 but on chosen tokens."""
    return Head(self.tokens.embedding[...], self.masked.bias[...], True, self.mesh)

  def next_logits(self, hidden: Float[Array, "B T D"]) -> Float[Array, "B 2"]:
    """From tanh(W·h + b) of the first token; class 1 = the second text follows the first. In float32."""
    return self.next(jnp.tanh(self.pooler(hidden[:, 0])), jnp.float32)
