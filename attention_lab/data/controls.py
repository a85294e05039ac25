"""Reference lines that a model has to beat, as accuracy on a test split.

Text: tf-idf of words and word pairs, and logistic regression (scikit-learn). Wang and Manning 2012, "Baselines and
bigrams: simple, good sentiment and topic classification", found such models hard to beat on long reviews.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from attention_lab.data.dataset import Lazy, digest

TFIDF = "tf-idf + logistic regression"  # the name of that reference line


def largest_class(train: Int[np.ndarray, "N"], test: Int[np.ndarray, "M"]) -> float:
  """Accuracy on the labels `test` of the most frequent label of `train`."""
  return float((test == np.bincount(train).argmax()).mean())


def nearest_neighbour(
  train: Float[np.ndarray, "N P"],
  train_labels: Int[np.ndarray, "N"],
  test: Float[np.ndarray, "M P"],
  test_labels: Int[np.ndarray, "M"],
) -> float:
  """Accuracy of the label of the nearest training vector in squared distance."""
  distance = (train**2).sum(-1) - 2 * test @ train.T
  return float((train_labels[distance.argmin(-1)] == test_labels).mean())


def logistic_regression(
  train: Float[np.ndarray, "N P"],
  train_labels: Int[np.ndarray, "N"],
  test: Float[np.ndarray, "M P"],
  test_labels: Int[np.ndarray, "M"],
) -> float:
  """Accuracy of a logistic regression on vectors of pixels."""
  from sklearn.linear_model import LogisticRegression

  mean = train.mean(axis=0)  # without it the solver takes three times as long
  model = LogisticRegression(C=0.1, tol=1e-3, max_iter=500).fit(train - mean, train_labels)
  return float(model.score(test - mean, test_labels))


def of_texts(
  train: Sequence[str], labels: Int[np.ndarray, "N"], test: Sequence[str], expected: Int[np.ndarray, "M"]
) -> Lazy:
  """The reference lines of text classification: the largest class, and tf-idf with a logistic regression."""
  return Lazy(
    {
      "largest class": functools.partial(largest_class, labels, expected),
      TFIDF: functools.partial(tfidf, train, labels, test, expected),
    }
  )


def tfidf(
  train: Sequence[str], labels: Int[np.ndarray, "N"], test: Sequence[str], expected: Int[np.ndarray, "M"]
) -> float:
  """Accuracy on the texts `test` after training on `train`; each process computes each case once."""
  return _tfidf(_Texts.of(train, labels), _Texts.of(test, expected))


@dataclasses.dataclass(frozen=True)
class _Texts:
  """Texts and labels, equal where their digests are."""

  digest: str
  texts: Sequence[str] = dataclasses.field(compare=False, repr=False)
  labels: np.ndarray = dataclasses.field(compare=False, repr=False)

  @classmethod
  def of(cls, texts: Sequence[str], labels: np.ndarray) -> "_Texts":
    joined = np.frombuffer("\0".join(texts).encode(), np.uint8)
    return cls(digest({"texts": joined, "labels": labels}), texts, labels)


@functools.lru_cache(maxsize=32)
def _tfidf(train: _Texts, test: _Texts) -> float:
  from sklearn.feature_extraction.text import TfidfVectorizer
  from sklearn.linear_model import LogisticRegression
  from sklearn.pipeline import make_pipeline

  counts = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
  model = make_pipeline(counts, LogisticRegression(C=10.0, max_iter=1000))
  model.fit(train.texts, train.labels)
  return float((model.predict(test.texts) == test.labels).mean())


def word_overlap(
  train: Sequence[tuple[str, str]],
  labels: Int[np.ndarray, "N"],
  test: Sequence[tuple[str, str]],
  expected: Int[np.ndarray, "M"],
) -> float:
  """Accuracy on pairs of texts of logistic regression on the tf-idf cosine and the Jaccard index of their words."""
  from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
  from sklearn.linear_model import LogisticRegression
  from sklearn.preprocessing import StandardScaler

  count = HashingVectorizer(n_features=1 << 20, norm=None, alternate_sign=False)  # words that train lacks count too
  weigh = TfidfTransformer(sublinear_tf=True).fit(count.transform(sorted({text for pair in train for text in pair})))

  def features(pairs: Sequence[tuple[str, str]]) -> np.ndarray:
    counts = [count.transform([pair[side] for pair in pairs]) for side in (0, 1)]
    first, second = (weigh.transform(matrix) for matrix in counts)
    cosine = np.asarray(first.multiply(second).sum(axis=1)).reshape(-1)
    shared = np.asarray((first > 0).multiply(second > 0).sum(axis=1)).reshape(-1)
    union = np.asarray((first > 0).sum(axis=1) + (second > 0).sum(axis=1)).reshape(-1) - shared
    return np.stack([cosine, shared / np.maximum(union, 1)], axis=1)

  scaler = StandardScaler().fit(features(train))
  model = LogisticRegression().fit(scaler.transform(features(train)), labels)
  return float(model.score(scaler.transform(features(test)), expected))
