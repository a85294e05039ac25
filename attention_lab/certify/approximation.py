"""Approximations of softmax attention: the error falls as the features grow."""

import dataclasses

import numpy as np

from attention_lab.attention.base import Call
from attention_lab.certify.finding import NOT_RUN, Refuted, require
from attention_lab.certify.under_test import VariantUnderTest

SIZES = ("features", "rank", "landmarks", "samples", "hashes", "buckets")  # fields that an approximation grows with
STEPS = (8, 512)


def converges(subject: VariantUnderTest) -> str:
  """With more of what it grows with, the mean error against exact softmax attention is less than half."""
  require(subject.claims.exactness == "approximate", "not claimed to approximate softmax")
  name, steps = getattr(subject.case, "GROWS", None) or _grows(subject)
  require(bool(name), f"none of the fields {', '.join(SIZES)} is there to grow", NOT_RUN)
  errors = []
  for size in steps:
    grown = dataclasses.replace(subject, variant=dataclasses.replace(subject.variant, **{name: size}))
    errors.append(np.mean([_error(grown, seed) for seed in range(8)]))
  if not errors[1] < 0.5 * errors[0]:
    raise Refuted(f"the mean error is {errors[0]:.3g} at {name}={steps[0]} and {errors[1]:.3g} at {steps[1]}")
  return f"mean error {errors[0]:.2g} at {name}={steps[0]}, {errors[1]:.2g} at {steps[1]}"


def _grows(subject: VariantUnderTest) -> tuple[str, tuple[int, int]]:
  """The field that an approximation grows with, where its case names none: 64 times as much of it."""
  names = [field.name for field in dataclasses.fields(subject.variant) if field.name in SIZES]
  return (names or [""])[0], STEPS


def _error(subject: VariantUnderTest, seed: int) -> float:
  shape = subject.shape(B=4, T=16, S=16, N=2, K=2, H=4)
  inputs = subject.inputs(shape, seed)
  out = subject.run(inputs, shape, Call(subject.mask()), seed)
  logits = np.einsum("btnh,bsnh->bnts", inputs.q, inputs.k) / np.sqrt(shape.H)
  if subject.claims.requires_causal:
    logits = np.where(np.tri(shape.T, dtype=bool), logits, -np.inf)
  numerators = np.exp(logits - logits.max(axis=-1, keepdims=True))
  weights = numerators / numerators.sum(axis=-1, keepdims=True)
  return float(np.mean(np.abs(out - np.einsum("bnts,bsnv->btnv", weights, inputs.v))))


PROOFS = {"error falls with its features": converges}
