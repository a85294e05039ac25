"""The functions of a task that points at spans of a text: loss, sums, predictions and their verdict.

Batches: tokens and types int32 [B, T], length int32 [B], and start and end int32 [B], the ends of the answer, 0 and 0
where the row's part of the context does not hold it.
"""

import dataclasses
from collections.abc import Mapping
from typing import cast

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jax.sharding import Mesh
from jaxtyping import Array, Float, PRNGKeyArray

from attention_lab.data import span_metrics
from attention_lab.data.dataset import Dataset, Lazy
from attention_lab.data.spans import Spans
from attention_lab.models import inspection, span_model
from attention_lab.models.chunked_cross_entropy import cross_entropy
from attention_lab.models.classifier import ClassifierConfig
from attention_lab.models.functional import Functional, Params, functional
from attention_lab.tasks.base import Batch, EvalResult, Task, check, total_loss
from attention_lab.tasks.parts import sequences

METADATA = {"types": span_model.TYPES}


def resolved_positions(config: ClassifierConfig, task: str) -> str:
  """The spec of the position encodings; refuses a misfit before data is read."""
  span_model.check(config)
  return check(config, task, causal=False)


def task(
  name: str, config: sequences.SequenceConfig, source: Dataset, resolved: str, *, mesh: Mesh | None = None
) -> Task:
  """The task `name` on a source of `data.spans`; its primary metric is both ends right, in every row."""
  T, vocabulary, model = source.metadata["length"], source.metadata["vocabulary"], config.model
  network = functional(lambda key: span_model.SpanModel(model, vocabulary, T, key=key, mesh=mesh))
  inspected = lambda params, batch: inspection.inspect(
    network, params, lambda module: sequences.forward(module, inspection.shortened(batch), None)
  )
  nothing = lambda: float((cast(Spans, source.splits["test"]).arrays["start"] == 0).mean())
  shown = dataclasses.replace(source, controls=Lazy({"no answer in any row": nothing}))
  return Task(
    name=name,
    source=sequences.bucketed(shown) if getattr(config.data, "buckets", False) else shown,
    model=network,
    loss=lambda params, batch, key: loss(network, params, batch, key),
    score=lambda params, batch: score(network, params, batch),
    summarize=summarize,
    primary="span_accuracy",
    higher_is_better=True,
    tokens_per_example=T,
    chance=None,
    resolved_positions=resolved,
    predict=lambda params, batch: predict(network, T, params, batch),
    judge=lambda predictions, split: judge(source, predictions, split),
    inspect=inspected,
  )


def loss(model: Functional, params: Params, batch: Batch, key: PRNGKeyArray | None) -> tuple[Array, dict[str, Array]]:
  """The mean of both ends' cross entropies, in nats, plus auxiliary losses."""
  output = sequences.forward(model.bind(params), batch, key)
  return total_loss(jnp.mean(_nats(output.logits, batch)), output)


def score(model: Functional, params: Params, batch: Batch) -> dict[str, Array]:
  """Sums over the rows: nats, right starts, right ends, both right, rows."""
  logits, weight = sequences.forward(model.bind(params), batch, None).logits, batch["weight"]
  best = jnp.argmax(logits, axis=1)
  start, end = best[:, 0] == batch["start"], best[:, 1] == batch["end"]
  return {
    "nll": jnp.sum(_nats(logits, batch) * weight),
    "starts": jnp.sum(start.astype(jnp.float32) * weight),
    "ends": jnp.sum(end.astype(jnp.float32) * weight),
    "spans": jnp.sum((start & end).astype(jnp.float32) * weight),
    "rows": jnp.sum(weight),
  }


def summarize(sums: Mapping[str, float]) -> dict[str, float]:
  """Shares of rows, windows without an answer included, and nats per row and end."""
  rows = sums["rows"]
  return {
    "span_accuracy": sums["spans"] / rows,
    "start_accuracy": sums["starts"] / rows,
    "end_accuracy": sums["ends"] / rows,
    "loss": sums["nll"] / rows,
  }


def predict(model: Functional, length: int, params: Params, batch: Batch) -> dict[str, Array]:
  """The logits of both ends, −∞ beyond the row, and the logs of their sums of exponentials."""
  logits = sequences.forward(model.bind(params), batch, None).logits
  padded = jnp.pad(logits, ((0, 0), (0, length - logits.shape[1]), (0, 0)), constant_values=-jnp.inf)
  return {"start": padded[:, :, 0], "end": padded[:, :, 1], "normalizer": jnp.sum(logsumexp(logits, axis=1), axis=1)}


def judge(source: Dataset, predictions: Mapping[str, np.ndarray], split: str) -> EvalResult:
  """Exact match and F1 of the answers, and the questions whose answer is not exact, the surest first.

  The confidence of an answer is the probability of its ends among those of its row.
  """
  part = cast(Spans, source.splits[split])
  texts = part.predictions(predictions["start"], predictions["end"])
  metrics = span_metrics.evaluate(texts, part.answers)
  confidence = _confidence(predictions, part.arrays["example"])
  errors = []
  for i in np.argsort(-confidence, kind="stable").tolist():
    question = part.questions[i]
    if not span_metrics.best(span_metrics.exact_match, texts[i], question.answers):
      row = {"index": i, "input": f"{question.text} | {question.context}", "label": list(question.answers)}
      overlap = span_metrics.best(span_metrics.f1, texts[i], question.answers)
      answer = {"predicted": texts[i], "confidence": round(float(confidence[i]), 4), "f1": round(overlap, 4)}
      errors.append(row | answer)
  tables = {"questions": len(part.questions), "rows": len(part)}
  return EvalResult(metrics, tables | ({"controls": dict(source.controls)} if split == "test" else {}), errors)


def _confidence(predictions: Mapping[str, np.ndarray], example: np.ndarray) -> Float[np.ndarray, "N"]:
  """Of each question, in its row with the best span."""
  valid = np.isfinite(predictions["start"])
  valid[:, 0] = False
  scores = span_metrics.best_span(predictions["start"], predictions["end"], valid)[2]
  order = np.lexsort((-scores, example))
  rows = order[np.unique(example[order], return_index=True)[1]]
  return np.exp(scores[rows].astype(np.float64) - predictions["normalizer"][rows])


def _nats(logits: Float[Array, "B T 2"], batch: Batch) -> Float[Array, "B"]:
  return (cross_entropy(logits[:, :, 0], batch["start"]) + cross_entropy(logits[:, :, 1], batch["end"])) / 2
