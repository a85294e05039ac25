"""Auxiliary losses: they are functions of what the variant reads, as the paper writes them."""

from typing import Any

import jax
import numpy as np

from attention_lab.attention.base import Call, Params
from attention_lab.certify import equality
from attention_lab.certify.equality import Cell
from attention_lab.certify.finding import NOT_GIVEN, Refuted, require
from attention_lab.certify.under_test import Inputs, VariantUnderTest

NAMES = ((), ("causal",), ("causal", "kv_valid"), ("q_valid", "kv_valid", "bias"))  # constraints of the calls
TOLERANCE = 1e-4  # relative


def losses(subject: VariantUnderTest) -> str:
  """Each loss equals the one that the case computes from the same examples."""
  shape = subject.shape(T=6, S=6)
  inputs, call = subject.inputs(shape), Call(subject.mask())
  program = subject.compiled(lambda params, inputs, call: _found(subject, params, inputs, call))
  names = sorted(jax.eval_shape(program, subject.params(shape.dims()), inputs, call))
  require(bool(names), "has no auxiliary loss")
  require(hasattr(subject.case, "losses"), "no losses in its case", NOT_GIVEN)
  count, params = 0, jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), subject.params(shape.dims()))
  for seed, cell in enumerate(Cell(shape, names) for names in NAMES):
    inputs, call, problem = equality.instance(subject, cell, seed)
    if problem:
      continue
    found = program(subject.params(shape.dims()), inputs, call)
    examples = [equality.example(inputs, call, cell, b) for b in range(shape.B)]
    wanted = subject.case.losses(subject.variant, params, examples)
    if set(found) != set(wanted):
      raise Refuted(f"the losses are {', '.join(found)}, not {', '.join(wanted)}", shape=shape, seed=seed)
    for name, value in wanted.items():
      if not abs(float(found[name]) - value) <= TOLERANCE * abs(value):
        detail = f"the loss {name} is {float(found[name]):.6g}, not {value:.6g}, under {cell.names or 'no mask'}"
        raise Refuted(detail, shape=shape, seed=seed)
    count += 1
  require(count > 0, "every combination is refused")
  return f"{', '.join(names)} in {count} calls"


def _found(subject: VariantUnderTest, params: Params, inputs: Inputs, call: Call) -> dict[str, Any]:
  q, k, v, x, y = inputs
  return subject.variant.with_aux(params, q, k, v, call._replace(x=x, y=y)).losses


PROOFS = {"losses are the paper's": losses}
