"""The reference line of text classification: tf-idf of words and word pairs, and logistic regression (scikit-learn).

Wang and Manning 2012, "Baselines and bigrams: simple, good sentiment and topic classification", found such models hard
to beat on long reviews.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from attention_lab.data.dataset import digest

NAME = "tf-idf + logistic regression"


def accuracy(
  train: Sequence[str], labels: Int[np.ndarray, "N"], test: Sequence[str], expected: Int[np.ndarray, "M"]
) -> float:
  """Accuracy on `test` after training on `train`; a process computes each case once, whatever asks for it."""
  return _accuracy(_Texts.of(train, labels), _Texts.of(test, expected))


@dataclasses.dataclass(frozen=True)
class _Texts:
  digest: str
  texts: Sequence[str] = dataclasses.field(compare=False, repr=False)
  labels: np.ndarray = dataclasses.field(compare=False, repr=False)

  @classmethod
  def of(cls, texts: Sequence[str], labels: np.ndarray) -> "_Texts":
    joined = np.frombuffer("\0".join(texts).encode(), np.uint8)
    return cls(digest({"texts": joined, "labels": labels}), texts, labels)


@functools.lru_cache(maxsize=32)
def _accuracy(train: _Texts, test: _Texts) -> float:
  from sklearn.feature_extraction.text import TfidfVectorizer
  from sklearn.linear_model import LogisticRegression
  from sklearn.pipeline import make_pipeline

  words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
  model = make_pipeline(words, LogisticRegression(C=10.0, max_iter=1000))
  model.fit(train.texts, train.labels)
  return float((model.predict(test.texts) == test.labels).mean())
