"""Models that classify sequences of tokens, by `--config.model.architecture`."""

import importlib

from flax import nnx
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray

from attention_lab.models.classifier import ClassifierConfig
from attention_lab.models.config_checks import FLAG, choose

ARCHITECTURES = {  # module and class; imported when asked for
  "encoder": ("classifier", "TransformerClassifier"),
  "decoder": ("classifier", "TransformerClassifier"),
  "lstm": ("baselines.recurrent", "Lstm"),
  "bilstm": ("baselines.recurrent", "BiLstm"),
  "cnn": ("baselines.convolution", "TextCnn"),
  "bag_of_words": ("baselines.bag", "BagOfWords"),
}


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
  module, kind = ARCHITECTURES[name]
  found = importlib.import_module(f"attention_lab.models.{module}")
  return getattr(found, kind)(config, vocabulary, max_len, classes, key=key, mesh=mesh)
