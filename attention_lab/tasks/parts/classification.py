"""The functions of a task that names the class of an example: loss, sums, predictions and what is said of them.

`forward(module, batch, key) -> Output` with logits `B C` is all that differs between texts, images and others. Batches
have label int32 [B]; where two examples are mixed also label_b int32 [B] and mix float32 [B], the weight of `label`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from attention_lab.data.dataset import Dataset
from attention_lab.models.chunked_cross_entropy import cross_entropy
from attention_lab.models.functional import Functional, Params
from attention_lab.models.layers import Output
from attention_lab.tasks.base import Batch, EvalResult, objective
from attention_lab.tasks.parts import metrics

Forward = Callable[[Any, Batch, PRNGKeyArray | None], Output]


def loss(
  model: Functional, forward: Forward, params: Params, batch: Batch, key: PRNGKeyArray | None
) -> tuple[Array, dict[str, Array]]:
  """Mean cross entropy, in nats, plus auxiliary losses."""
  output = forward(model.bind(params), batch, key)
  nats = cross_entropy(output.logits, batch["label"])
  if "mix" in batch:
    nats = batch["mix"] * nats + (1 - batch["mix"]) * cross_entropy(output.logits, batch["label_b"])
  return objective(jnp.mean(nats), output)


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


def functions(model: Functional, forward: Forward, source: Dataset) -> dict[str, Callable]:
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
  return EvalResult(metrics.classification(probabilities, label), metrics.tables(probabilities, label, names), errors)
