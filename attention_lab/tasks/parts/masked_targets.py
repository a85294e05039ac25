"""The functions of a task that asks a decoder for a token at some positions: loss, sums and metrics.

Batches: tokens int32 [B, T], targets int32 [B, T], −1 where nothing is asked.
"""

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from attention_lab.models import chunked_cross_entropy
from attention_lab.models.functional import Functional, Params
from attention_lab.tasks.base import Batch, target_count, total_loss, with_target_rate

SOLVED = 0.99  # accuracy from which a task counts as solved: such tasks are learned by a jump


def prepare(batch: Batch, key: PRNGKeyArray | None) -> Batch:
  """The batch with the number of questions per example, for the `loss` of micro-batches."""
  del key
  return with_target_rate(batch, _asked(batch)[1])


def loss(model: Functional, params: Params, batch: Batch, key: PRNGKeyArray | None) -> tuple[Array, dict[str, Array]]:
  """Mean cross entropy over what is asked, in nats, plus auxiliary losses."""
  module = model.bind(params)
  hidden, (targets, asked) = module.hidden(batch["tokens"], key=key), _asked(batch)
  nll = chunked_cross_entropy.nll_sum(module.output_head(), hidden.logits, targets, asked)
  return total_loss(nll / target_count(batch, asked), hidden)


def score(
  model: Functional, params: Params, batch: Batch, weights: Mapping[str, Float[Array, "B"]] | None = None
) -> dict[str, Array]:
  """Sums over the batch: nats, right answers, questions.

  weights: those of examples by what the names of their sums end in; None: {"": batch["weight"]}.
  """
  module = model.bind(params)
  hidden, (targets, asked) = module.hidden(batch["tokens"]).logits, _asked(batch)
  sums: dict[str, Array] = {}
  for ending, weight in ({"": batch["weight"]} if weights is None else weights).items():
    counted = asked * weight[:, None]
    scored = chunked_cross_entropy.score_sums(module.output_head(), hidden, targets, counted) | {
      "questions": jnp.sum(counted)
    }
    sums |= {f"{name}{ending}": value for name, value in scored.items()}
  return sums


def summarize(sums: Mapping[str, float]) -> dict[str, float]:
  """Accuracy and nats per question; solved is 1 from an accuracy of SOLVED."""
  accuracy = sums["correct"] / sums["questions"]
  return {"accuracy": accuracy, "loss": sums["nll"] / sums["questions"], "solved": float(accuracy >= SOLVED)}


def _asked(batch: Batch) -> tuple[Int[Array, "B T"], Float[Array, "B T"]]:
  """The targets, 0 where nothing is asked, and 1 where a token is asked for."""
  targets = batch["targets"]
  return jnp.maximum(targets, 0), (targets >= 0).astype(jnp.float32)
