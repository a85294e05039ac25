"""Models that classify sequences of tokens, and the choice by `--config.model.architecture`."""

import abc
import dataclasses
import importlib
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from attention_lab.attention.mask import CAUSAL, FULL, Mask
from attention_lab.config import ModelConfig
from attention_lab.models import config_checks
from attention_lab.models.baselines import check
from attention_lab.models.config_checks import FLAG, choose
from attention_lab.models.embedding import embedded, tables
from attention_lab.models.layers import Linear, Output, dropout, named_key
from attention_lab.models.pooling import AttentionPooling, last, mean
from attention_lab.models.transformer import Transformer

ARCHITECTURES = {  # module and class
  "encoder": ("classifier", "TransformerClassifier"),
  "decoder": ("classifier", "TransformerClassifier"),
  "lstm": ("baselines.recurrent", "Lstm"),
  "bilstm": ("baselines.recurrent", "BiLstm"),
  "cnn": ("baselines.convolution", "TextCnn"),
  "bag_of_words": ("classifier", "BagOfWords"),
}
MASKS = {"encoder": FULL, "decoder": CAUSAL}
POOLINGS = ("mean", "first", "last", "attention")
USUAL = {"encoder": "mean", "decoder": "last"}


@dataclasses.dataclass
class ClassifierConfig(ModelConfig):
  architecture: str = "encoder"  # encoder, decoder, lstm, bilstm, cnn or bag_of_words
  pooling: str = "auto"  # what is classified: auto (what the architecture is known for), mean, first, last, attention
  types: int = 0  # kinds of segments told apart by a learned vector, 2 as in BERT; 0 = none


class TextClassifier(nnx.Module):
  """Logits over C classes: vectors of tokens, what a subclass makes of them, and a linear map."""

  dtype: Any  # that of the vectors

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
    self.max_len = max_len
    width = self.build(config, key=key, mesh=mesh)
    self.tokens, self.types = tables(vocabulary, config.width, config.types, key=key)
    self.head = Linear((width,), (classes,), key=named_key(key, "head"))

  def __call__(
    self,
    tokens: Int[Array, "B T *W"],
    *,
    valid: Bool[Array, "B T"] | None = None,
    types: Int[Array, "B T"] | None = None,
    key: PRNGKeyArray | None = None,
  ) -> Output:
    """Logits `B C` in float32. valid: False on padding, which nobody reads and which is not pooled.

    types: below `config.types`; None = all 0. Raises ValueError for types where the model was built without.
    """
    pooled = self.pooled(embedded(self.tokens, self.types, tokens, types, self.dtype), valid, key)
    return pooled._replace(logits=self.head(pooled.logits, jnp.float32))

  @abc.abstractmethod
  def build(self, config: ClassifierConfig, *, key: PRNGKeyArray, mesh: Mesh | None) -> int:
    """Makes `dtype` and the parts of the model; returns the width of what is classified."""

  @abc.abstractmethod
  def pooled(self, x: Float[Array, "B T D"], valid: Bool[Array, "B T"] | None, key: PRNGKeyArray | None) -> Output:
    """The vectors `B W` that are classified, in place of logits, with losses and statistics."""


class BagOfWords(TextClassifier):
  """The mean of the valid tokens' vectors, which sees no order. Of the config it reads what every baseline does.

  Joulin et al. 2017 (https://arxiv.org/abs/1607.01759, section 2), without their hashed word pairs.
  """

  def build(self, config: ClassifierConfig, *, key: PRNGKeyArray, mesh: Mesh | None) -> int:
    del key, mesh
    check(config, "bag_of_words", {"types"})
    self.dropout, self.dtype = config.dropout, config_checks.dtype(config)
    return config.width

  def pooled(self, x: Array, valid: Array | None, key: PRNGKeyArray | None) -> Output:
    return Output(dropout(mean(x, valid), self.dropout, named_key(key, "dropout")), {}, {})


class TransformerClassifier(TextClassifier):
  """Logits over C classes of one vector that `config.pooling` makes of the valid tokens.

  architecture encoder: each token reads both directions, and `auto` takes their mean. decoder: each reads those before
  it, and `auto` takes the last (Radford et al. 2018, GPT). Parameters of the first lie at `encoder/…`, of the second at
  `decoder/…`, where a language model has them. With types the input is BERT's, whose parameters fit: a vector for each
  type is added to the token's, and a norm follows the codes of positions.
  """

  def build(self, config: ClassifierConfig, *, key: PRNGKeyArray, mesh: Mesh | None) -> int:
    self.architecture = choose(f"{FLAG}.architecture", config.architecture, MASKS)
    self.pooling = _pooling(config)
    typed = _types(config) > 0
    stack_key = named_key(key, self.architecture)
    stack = Transformer(config, self.max_len, key=stack_key, embedding_norm=typed, mesh=mesh)
    setattr(self, self.architecture, stack)
    self.dtype = stack.dtype
    if self.pooling == "attention":
      self.pool = AttentionPooling(config, key=named_key(key, "pool"), mesh=mesh)
    return config.width

  def pooled(self, x: Array, valid: Array | None, key: PRNGKeyArray | None) -> Output:
    mask = MASKS[self.architecture]
    mask = mask if valid is None else mask & Mask(q_valid=valid, kv_valid=valid)
    stack: Transformer = getattr(self, self.architecture)
    hidden = stack(x, mask=mask, key=named_key(key, self.architecture))
    if self.pooling == "first":
      return hidden._replace(logits=hidden.logits[:, 0])
    pool = self.pool if self.pooling == "attention" else {"mean": mean, "last": last}[self.pooling]
    return hidden._replace(logits=pool(hidden.logits, valid))


def _pooling(config: ClassifierConfig) -> str:
  pooling = choose(f"{FLAG}.pooling", config.pooling, ("auto", *POOLINGS))
  if config.architecture == "decoder" and pooling == "first":
    why = "the first token of a decoder reads no other"
    raise ValueError(f"{FLAG}.pooling=first with {FLAG}.architecture=decoder: {why}; give last, mean or attention")
  return USUAL[config.architecture] if pooling == "auto" else pooling


def _types(config: ClassifierConfig) -> int:
  if config.types < 0:
    raise ValueError(f"{FLAG}.types={config.types} is negative; 0 means none")
  return config.types


def build(
  config: ClassifierConfig,
  vocabulary: int,
  max_len: int,
  classes: int,
  *,
  key: PRNGKeyArray,
  mesh: Mesh | None = None,
) -> nnx.Module:
  """The classifier `config.architecture`: (tokens `B T`, valid=, types=, key=) -> Output with logits `B C`.

  Raises ValueError for an unknown architecture or for settings that it has no use for, naming the flag.
  """
  name = choose(f"{FLAG}.architecture", config.architecture, ARCHITECTURES)
  path, kind = ARCHITECTURES[name]
  module = importlib.import_module(f"attention_lab.models.{path}")
  return getattr(module, kind)(config, vocabulary, max_len, classes, key=key, mesh=mesh)
