"""Bag of words: the mean of the tokens' vectors and one linear map, which see no order.

Joulin et al. 2017 (https://arxiv.org/abs/1607.01759, section 2), without their hashed word pairs.
"""

from jax.sharding import Mesh
from jaxtyping import Array, PRNGKeyArray

from attention_lab.models import config_checks
from attention_lab.models.baselines import check
from attention_lab.models.classifier import ClassifierConfig, TextClassifier
from attention_lab.models.layers import Output, dropout, named_key
from attention_lab.models.pooling import mean


class BagOfWords(TextClassifier):
  """Logits over C classes from the mean of the valid tokens. Of the config it reads what every baseline does."""

  def build(self, config: ClassifierConfig, *, key: PRNGKeyArray, mesh: Mesh | None) -> int:
    del key, mesh
    check(config, "bag_of_words", {"types"})
    self.dropout, self.dtype = config.dropout, config_checks.dtype(config)
    return config.width

  def pooled(self, x: Array, valid: Array | None, key: PRNGKeyArray | None) -> Output:
    return Output(dropout(mean(x, valid), self.dropout, named_key(key, "dropout")), {}, {})
