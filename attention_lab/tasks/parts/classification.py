"""The functions of a task that names the class of an example: loss, sums, predictions and their verdict.

`forward(module, batch, key) -> Output` with logits `B C` is all that differs between texts, images and others. Batches
have label int32 [B]; where two examples are mixed also label_b int32 [B] and mix float32 [B], the weight of `label`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from attention_lab.data.dataset import Dataset
from attention_lab.models.chunked_cross_entropy import cross_entropy
from attention_lab.models.functional import Functional, Params
from attention_lab.models.layers import Output
from attention_lab.tasks.base import Batch, EvalResult, total_loss

BINS = 15  # of confidence, for the calibration error
TOP = 5
TABLED = 100  # classes, beyond which a confusion matrix is no table that anybody reads
Forward = Callable[[Any, Batch, PRNGKeyArray | None], Output]


def loss(
  model: Functional, forward: Forward, params: Params, batch: Batch, key: PRNGKeyArray | None
) -> tuple[Array, dict[str, Array]]:
  """Mean cross entropy, in nats, plus auxiliary losses."""
  output = forward(model.bind(params), batch, key)
  nats = cross_entropy(output.logits, batch["label"])
  if "mix" in batch:
    nats = batch["mix"] * nats + (1 - batch["mix"]) * cross_entropy(output.logits, batch["label_b"])
  return total_loss(jnp.mean(nats), output)


def score(model: Functional, forward: Forward, params: Params, batch: Batch) -> dict[str, Array]:
  """Sums over the batch: nats, right guesses, examples."""
  logits, weight = forward(model.bind(params), batch, None).logits, batch["weight"]
  right = (jnp.argmax(logits, axis=-1) == batch["label"]).astype(jnp.float32)
  return {
    "nll": jnp.sum(cross_entropy(logits, batch["label"]) * weight),
    "correct": jnp.sum(right * weight),
    "examples": jnp.sum(weight),
  }


def summarize(sums: Mapping[str, float]) -> dict[str, float]:
  """Accuracy, and nats per example."""
  return {"accuracy": sums["correct"] / sums["examples"], "loss": sums["nll"] / sums["examples"]}


def functions(model: Functional, forward: Forward, source: Dataset) -> dict[str, Any]:
  """`loss`, `score`, `summarize`, `predict` and `judge` of a `Task`; `source.metadata` has the classes' `names`."""
  return {
    "loss": lambda params, batch, key: loss(model, forward, params, batch, key),
    "score": lambda params, batch: score(model, forward, params, batch),
    "summarize": summarize,
    "predict": lambda params, batch: predict(model, forward, params, batch),
    "judge": lambda predictions, split: judge(source, predictions, split),
  }


def predict(model: Functional, forward: Forward, params: Params, batch: Batch) -> dict[str, Array]:
  """The probability of each class, and the label beside it."""
  logits = forward(model.bind(params), batch, None).logits
  return {"probabilities": jax.nn.softmax(logits, axis=-1), "label": batch["label"]}


def judge(source: Dataset, predictions: Mapping[str, np.ndarray], split: str) -> EvalResult:
  """The metrics and tables of a split, and its wrong guesses, the surest first.

  Probabilities that are no numbers count as knowing nothing: all classes alike.
  """
  probabilities, label = predictions["probabilities"].astype(np.float64), predictions["label"]
  known = np.isfinite(probabilities).all(axis=-1, keepdims=True)
  probabilities = np.where(known, probabilities, 1 / probabilities.shape[1])
  names = [str(name) for name in source.metadata["names"]]
  guess, confidence = probabilities.argmax(-1), probabilities.max(-1)
  wrong = np.flatnonzero(guess != label)
  describe = getattr(source.splits[split], "describe", "example {}".format)
  errors = [
    {
      "index": int(i),
      "input": describe(int(i)),
      "label": names[label[i]],
      "predicted": names[guess[i]],
      "confidence": round(float(confidence[i]), 4),
    }
    for i in wrong[np.argsort(-confidence[wrong], kind="stable")]
  ]
  return EvalResult(probability_metrics(probabilities, label), class_tables(probabilities, label, names), errors)


def probability_metrics(
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
  scored = {"precision": float(precision), "recall": float(recall), "f1": float(f1)}
  if len(np.unique(label)) == classes:
    scores = probabilities[:, 1] if classes == 2 else probabilities
    scored["roc_auc"] = float(metrics.roc_auc_score(label, scores, multi_class="ovr", labels=known))
  if classes > TOP:
    ranked = np.argpartition(-probabilities, TOP, axis=-1)[:, :TOP]
    scored["top_5"] = float((ranked == label[:, None]).any(-1).mean())
  return scored | {"calibration_error": calibration_error(probabilities, label)}


def calibration_error(probabilities: Float[np.ndarray, "N C"], label: Int[np.ndarray, "N"]) -> float:
  """Σ_b n_b/N · |accuracy_b − confidence_b| over BINS bins of equal width of the largest probability.

  Guo et al. 2017 (https://arxiv.org/abs/1706.04599, equation 3).
  """
  confidence, right = probabilities.max(-1), probabilities.argmax(-1) == label
  bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
  sums = [np.bincount(bins, weights=values, minlength=BINS) for values in (confidence, right)]
  return float(np.abs(sums[0] - sums[1]).sum() / len(label))


def class_tables(probabilities: Float[np.ndarray, "N C"], label: Int[np.ndarray, "N"], names: list[str]) -> dict:
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
