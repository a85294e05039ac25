"""A decoder that predicts the next token."""

import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PRNGKeyArray

from attention_lab.attention.mask import CAUSAL, Mask
from attention_lab.attention.positions import Positions
from attention_lab.config import ModelConfig
from attention_lab.models.chunked_cross_entropy import Head
from attention_lab.models.embedding import Tokens
from attention_lab.models.layers import Linear, Output, named_key
from attention_lab.models.transformer import State, Transformer


class TransformerLM(nnx.Module):
  """Logits over V tokens at each position. tied: the embedding table is also the output map (Press and Wolf 2017)."""

  def __init__(
    self,
    config: ModelConfig,
    vocabulary: int,
    max_len: int,
    *,
    key: PRNGKeyArray,
    tied: bool = True,
    mesh: Mesh | None = None,
  ):
    self.max_len, self.vocabulary, self.tied, self.mesh = max_len, vocabulary, tied, mesh
    self.decoder = Transformer(config, max_len, key=named_key(key, "decoder"), mesh=mesh)
    self.tokens = Tokens(vocabulary, config.width, key=named_key(key, "tokens"))
    if not tied:
      self.head = Linear((config.width,), (vocabulary,), key=named_key(key, "head"))

  def __call__(
    self,
    tokens: Int[Array, "B T"],
    *,
    mask: Mask = CAUSAL,
    positions: Positions = Positions(),
    key: PRNGKeyArray | None = None,
  ) -> Output:
    """Logits `B T V` in float32. Packed sequences: a mask with segments, and positions that restart in each."""
    hidden = self.hidden(tokens, mask=mask, positions=positions, key=key)
    return hidden._replace(logits=self.output_head().logits(hidden.logits))

  def hidden(
    self,
    tokens: Int[Array, "B T"],
    *,
    mask: Mask = CAUSAL,
    positions: Positions = Positions(),
    key: PRNGKeyArray | None = None,
  ) -> Output:
    """As a call, with the last norm's output `B T D` in place of logits; `output_head` makes them of it."""
    x = self.tokens(tokens, self.decoder.dtype)
    return self.decoder(x, mask=mask, positions=positions, key=named_key(key, "decoder"))

  def output_head(self) -> Head:
    """The output map, for `nll_sum` and `score_sums`, which need not have all logits at once."""
    if self.tied:
      return Head(self.tokens.embedding[...], None, True, self.mesh)
    return Head(self.head.kernel[...], self.head.bias[...], False, self.mesh)

  def init_state(self, batch: int) -> State:
    """The decoding state of `batch` empty sequences; it has room for `max_len` tokens."""
    return self.decoder.init_state(batch)

  def extend(
    self, tokens: Int[Array, "B T"], state: State, lengths: Int[Array, "B"] | None = None, *, last: bool = False
  ) -> tuple[State, Float[Array, "B *T V"]]:
    """Logits after T more tokens, of which `lengths` in each row are real (the rest is padding on the right).

    last: the logits at each row's last real token only, `B V`. Prefill and decoding in one; NaN beyond `max_len`.
    """
    state, hidden = self.decoder.extend(self.tokens(tokens, self.decoder.dtype), state, lengths)
    if last:
      at = jnp.full((tokens.shape[0],), tokens.shape[1], jnp.int32) if lengths is None else lengths
      hidden = jnp.take_along_axis(hidden, jnp.maximum(at - 1, 0)[:, None, None], axis=1)[:, 0]
    return state, self.output_head().logits(hidden)
