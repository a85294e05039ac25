"""Bag of words: the mean of the tokens' vectors and one linear map, which see no order.

Joulin et al. 2017 (https://arxiv.org/abs/1607.01759, section 2), without their hashed word pairs.
"""

import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from attention_lab.models import config_checks
from attention_lab.models.baselines import check
from attention_lab.models.classifier import ClassifierConfig
from attention_lab.models.embedding import embedded, tables
from attention_lab.models.layers import Linear, Output, dropout, named_key
from attention_lab.models.pooling import mean


class BagOfWords(nnx.Module):
  """Logits over C classes from the mean of the valid tokens. Of the config it reads what every baseline does."""

  def __init__(
    self,
    config: ClassifierConfig,
    vocabulary: int,
    max_len: int,
    classes: int,
    *,
    key: PRNGKeyArray,
    mesh: Mesh | None = None,
  ):
    del mesh
    check(config, "bag_of_words", {"types"})
    self.max_len, self.dropout, self.dtype = max_len, config.dropout, config_checks.dtype(config)
    self.tokens, self.types = tables(vocabulary, config.width, config.types, key=key)
    self.head = Linear((config.width,), (classes,), key=named_key(key, "head"))

  def __call__(
    self,
    tokens: Int[Array, "B T *W"],
    *,
    valid: Bool[Array, "B T"] | None = None,
    types: Int[Array, "B T"] | None = None,
    key: PRNGKeyArray | None = None,
  ) -> Output:
    """Logits `B C` in float32. valid: False on padding, which does not count. types: below `config.types`."""
    pooled = dropout(
      mean(embedded(self.tokens, self.types, tokens, types, self.dtype), valid),
      self.dropout,
      named_key(key, "dropout"),
    )
    return Output(self.head(pooled, jnp.float32), {}, {})
