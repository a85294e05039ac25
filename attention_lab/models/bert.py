"""BERT: an encoder that learns by restoring masked tokens, and by telling whether two texts follow each other.

Devlin et al. 2019 (https://arxiv.org/abs/1810.04805, section 3.1, and the authors' code for the heads).
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from attention_lab.attention.mask import FULL, Mask
from attention_lab.config import ModelConfig
from attention_lab.models.chunked_cross_entropy import Head
from attention_lab.models.embedding import embedded, tables
from attention_lab.models.layers import Linear, Output, named_key, norm
from attention_lab.models.transformer import Transformer

TYPES = 2  # of segments: a token of the first text, or of the second


MASKED, RANDOM = 0.8, 0.1  # shares of the chosen tokens that are hidden, and replaced; the others stay


class Masked(nnx.Module):
  """norm(gelu(W·x + b)), and the bias of the output map, whose kernel is the embedding table."""

  def __init__(self, config: ModelConfig, vocabulary: int, *, key: PRNGKeyArray):
    self.dense = Linear((config.width,), (config.width,), key=named_key(key, "dense"))
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
    self.encoder = Transformer(config, max_len, key=named_key(key, "encoder"), embedding_norm=True, mesh=mesh)
    self.tokens, self.types = tables(vocabulary, config.width, TYPES, key=key)
    self.masked = Masked(config, vocabulary, key=named_key(key, "masked"))
    self.pooler = Linear((config.width,), (config.width,), key=named_key(key, "pooler"))
    self.next = Linear((config.width,), (2,), key=named_key(key, "next"))

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
    return self.encoder(x, mask=mask, key=named_key(key, "encoder"))

  def transform(self, hidden: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    """Hidden states as `masked_head` wants them."""
    return self.masked(hidden)

  def masked_head(self) -> Head:
    """The map from `transform(hidden)` to logits over tokens; for `nll_sum`, weights 0 but on chosen tokens."""
    return Head(self.tokens.embedding[...], self.masked.bias[...], True, self.mesh)

  def next_logits(self, hidden: Float[Array, "B T D"]) -> Float[Array, "B 2"]:
    """From tanh(W·h + b) of the first token; class 1 = the second text follows the first. In float32."""
    return self.next(jnp.tanh(self.pooler(hidden[:, 0])), jnp.float32)


def mask_tokens(
  key: PRNGKeyArray,
  tokens: Int[Array, "B T"],
  length: Int[Array, "B"],
  specials: tuple[int, ...],
  vocabulary: int,
  mask_id: int,
  rate: float = 0.15,
) -> tuple[Int[Array, "B T"], Bool[Array, "B T"]]:
  """The tokens with some hidden, and which ones are to be told; a pure function of `key`.

  Of each row's first `length` tokens that are not in `specials`, ⌈rate · their number⌉ are chosen, all alike likely;
  of these 80 % become `mask_id`, 10 % any token of [0, vocabulary) that is not special, and 10 % stay. Devlin et al.
  2019 (https://arxiv.org/abs/1810.04805, section 3.1 and appendix A.1), who draw special tokens too. Raises ValueError
  for a rate outside (0, 1], or if all tokens are special.
  """
  special = sorted({*specials, mask_id})
  if not 0 < rate <= 1:
    raise ValueError(f"rate={rate} is not a share in (0, 1]")
  if special[-1] >= vocabulary or special[0] < 0 or len(special) >= vocabulary:
    raise ValueError(f"a vocabulary of {vocabulary} tokens, of which {special} are special, leaves none to draw from")
  order, kind, source = jax.random.split(key, 3)
  B, T = tokens.shape
  eligible = jnp.arange(T)[None] < length[:, None]
  for token in special:
    eligible &= tokens != token
  shares = np.ceil(np.arange(T + 1) * rate - 1e-9).astype(np.int32)  # by the number of eligible tokens, exactly
  scores = jnp.where(eligible, jax.random.uniform(order, (B, T)), 2.0)
  rank = jnp.argsort(jnp.argsort(scores, axis=1), axis=1)
  chosen = eligible & (rank < jnp.asarray(shares)[jnp.sum(eligible, axis=1)][:, None])
  drawn = jax.random.randint(source, (B, T), 0, vocabulary - len(special), tokens.dtype)
  for token in special:  # ascending: each opens its gap
    drawn += (drawn >= token).astype(tokens.dtype)
  share = jax.random.uniform(kind, (B, T))
  other = jnp.where(share < MASKED + RANDOM, drawn, tokens)
  shown = jnp.where(share < MASKED, jnp.asarray(mask_id, tokens.dtype), other)
  return jnp.where(chosen, shown, tokens), chosen
