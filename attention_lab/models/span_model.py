"""Where in a text an answer begins and ends.

Devlin et al. 2019 (https://arxiv.org/abs/1810.04805, section 4.2): two vectors, learned for the task, are multiplied
with every token's last state; the first token stands for "no answer here" (section 4.3).
"""

import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from attention_lab.attention.mask import Mask
from attention_lab.models.classifier import ClassifierConfig
from attention_lab.models.config_checks import FLAG
from attention_lab.models.embedding import embedded, tables
from attention_lab.models.layers import Linear, Output, named_key
from attention_lab.models.transformer import Transformer

TYPES = 2  # of segments: the question, the context


class SpanModel(nnx.Module):
  """Logits of the first and the last token of an answer in rows of class, question, separator, context, separator.

  `encoder/…`, `tokens/…` and `types/…` are also the parameters of a `Bert` of otherwise this configuration, so that
  they carry over by path. Raises ValueError for another architecture than an encoder, for a pooling, and for other
  types than TYPES.
  """

  def __init__(
    self, config: ClassifierConfig, vocabulary: int, max_len: int, *, key: PRNGKeyArray, mesh: Mesh | None = None
  ):
    check(config)
    self.max_len = max_len
    self.encoder = Transformer(config, max_len, key=named_key(key, "encoder"), embedding_norm=True, mesh=mesh)
    self.tokens, self.types = tables(vocabulary, config.width, TYPES, key=key)
    self.ends = Linear((config.width,), (2,), key=named_key(key, "ends"))

  def __call__(
    self,
    tokens: Int[Array, "B T"],
    *,
    valid: Bool[Array, "B T"] | None = None,
    types: Int[Array, "B T"] | None = None,
    key: PRNGKeyArray | None = None,
  ) -> Output:
    """Logits `B T 2` of start and end in float32, −∞ where no answer can be: all but `answerable` and the first token.

    valid: False on padding, which nobody reads. types: 1 from the context on; None = all 0, which has no answer.
    """
    real = jnp.ones(tokens.shape, bool) if valid is None else valid
    x = embedded(self.tokens, self.types, tokens, types, self.encoder.dtype)
    hidden = self.encoder(x, mask=Mask(q_valid=real, kv_valid=real), key=named_key(key, "encoder"))
    logits = self.ends(hidden.logits, jnp.float32)
    allowed = answerable(jnp.zeros_like(tokens) if types is None else types, real).at[:, 0].set(True)
    return hidden._replace(logits=jnp.where(allowed[:, :, None], logits, -jnp.inf))


def answerable(types: Int[Array, "B T"], valid: Bool[Array, "B T"]) -> Bool[Array, "B T"]:
  """The tokens of the context: those of type 1 but the last valid one of a row, its separator."""
  is_followed = jnp.pad(valid[:, 1:], ((0, 0), (0, 1)))
  return (types == 1) & valid & is_followed


def check(config: ClassifierConfig) -> None:
  """Raises ValueError for settings that a `SpanModel` has no use for, naming the flag."""
  for name, wanted, why in (
    ("architecture", "encoder", "each token must read the question and what follows it"),
    ("pooling", "auto", "spans are told from every token, and nothing is pooled"),
    ("types", TYPES, "a row has a question and a context"),
  ):
    setting = getattr(config, name)
    if setting != wanted:
      raise ValueError(f"{FLAG}.{name}={setting} is not for spans of a text: {why}; give {wanted}")
