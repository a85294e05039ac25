"""Metrics of a whole split's class probabilities, by scikit-learn where it has them."""

import numpy as np
from jaxtyping import Float, Int

BINS = 15  # of confidence, for the calibration error
TOP = 5
TABLED = 100  # classes, beyond which a confusion matrix is no table that anybody reads


def classification(
  probabilities: Float[np.ndarray, "N C"], label: Int[np.ndarray, "N"], positive: int = 1
) -> dict[str, float]:
  """Precision, recall and F1 (of class `positive` where there are two, else means over classes), ROC-AUC, calibration.

  ROC-AUC is one class against the rest, the mean over classes; left out where a class has no example. top_5 where there
  are more than five classes.
  """
  from sklearn import metrics

  guess, classes = probabilities.argmax(-1), probabilities.shape[1]
  how = {"average": "binary", "pos_label": positive} if classes == 2 else {"average": "macro"}
  known = np.arange(classes)
  labels = {} if classes == 2 else {"labels": known}
  precision, recall, f1, _ = metrics.precision_recall_fscore_support(label, guess, zero_division=0.0, **how, **labels)
  found = {"precision": float(precision), "recall": float(recall), "f1": float(f1)}
  if len(np.unique(label)) == classes:
    scores = probabilities[:, 1] if classes == 2 else probabilities
    found["roc_auc"] = float(metrics.roc_auc_score(label, scores, multi_class="ovr", labels=known))
  if classes > TOP:
    ranked = np.argpartition(-probabilities, TOP, axis=-1)[:, :TOP]
    found["top_5"] = float((ranked == label[:, None]).any(-1).mean())
  return found | {"calibration_error": calibration_error(probabilities, label)}


def calibration_error(probabilities: Float[np.ndarray, "N C"], label: Int[np.ndarray, "N"]) -> float:
  """Σ_b n_b/N · |accuracy_b − confidence_b| over BINS bins of equal width of the largest probability.

  Guo et al. 2017 (https://arxiv.org/abs/1706.04599, equation 3).
  """
  confidence, right = probabilities.max(-1), probabilities.argmax(-1) == label
  place = np.minimum((confidence * BINS).astype(int), BINS - 1)
  sums = [np.bincount(place, weights=values, minlength=BINS) for values in (confidence, right)]
  return float(np.abs(sums[0] - sums[1]).sum() / len(label))


def tables(probabilities: Float[np.ndarray, "N C"], label: Int[np.ndarray, "N"], names: list[str]) -> dict:
  """JSON: the confusion matrix (rows are labels), and precision, recall, F1 and examples of each class."""
  from sklearn import metrics

  if len(names) > TABLED:
    return {}
  guess, known = probabilities.argmax(-1), np.arange(len(names))
  columns = metrics.precision_recall_fscore_support(label, guess, labels=known, zero_division=0.0)
  rows = zip(names, *(column.tolist() for column in columns), strict=True)
  by_class = [dict(zip(("class", "precision", "recall", "f1", "examples"), row, strict=True)) for row in rows]
  matrix = metrics.confusion_matrix(label, guess, labels=known).tolist()
  return {"classes": names, "confusion": matrix, "by_class": by_class}
