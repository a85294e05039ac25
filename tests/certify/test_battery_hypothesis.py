"""Hypothesis draws values, masks and splits for one variant of each engine: few shapes, so that each compiles once."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attention_lab.attention import spec
from attention_lab.attention.base import Call
from attention_lab.attention.mask import CAUSAL, Mask
from attention_lab.certify import battery, equality, random_calls
from attention_lab.certify.finding import same
from attention_lab.certify.under_test import Inputs, VariantUnderTest

SPECS = ("softmax", "local(window=3)", "linear(chunk=4)", "gated_delta(chunk=4)")
ROOM, ROWS = 4, 3  # tokens in a chunk of `extend`, and rows of it
EXAMPLES = settings(max_examples=25, deadline=None, derandomize=True, database=None)
ARRAYS = ("kv_valid", "q_valid", "segments", "explicit", "bias", "prefix")
SIZES = st.sampled_from((0.01, 1.0, 100.0))


@functools.cache
def subject(text):
  return VariantUnderTest(spec.parse(text), battery.cases()[text.partition("(")[0]], quick=True)


def neutral(call, named):
  """The call with the constraints that are not `named` left without effect, in the same program."""
  mask, arrays = call.mask, {}
  for name in {"kv_valid", "q_valid", "explicit"} - named:
    arrays[name] = None if getattr(mask, name) is None else jnp.ones_like(getattr(mask, name))
  if "segments" not in named:
    ids = {name: getattr(mask, name) for name in ("q_segments", "k_segments")}
    arrays |= {name: None if array is None else jnp.zeros_like(array) for name, array in ids.items()}
  if "prefix" not in named:
    arrays["prefix"] = None if mask.prefix is None else jnp.zeros_like(mask.prefix)
  bias = call.bias if call.bias is None or "bias" in named else jnp.zeros_like(call.bias)
  return call._replace(mask=Mask(**{**vars(mask), **arrays}), bias=bias)


@pytest.mark.parametrize("text", SPECS)
@EXAMPLES
@given(
  seed=st.integers(0, 2**16),
  named=st.frozensets(st.sampled_from(ARRAYS)),
  static=st.sampled_from((frozenset(), frozenset({"causal"}), frozenset({"causal", "window"}))),
  size=st.sampled_from((0.3, 1.0, 3.0)),
  loudness=SIZES,
)
def test_any_values_under_any_mask_equal_the_oracle(text, seed, named, static, size, loudness):
  variant = subject(text)
  cell = equality.Cell(variant.shape(B=2, T=7, S=7, K=2, H=4, V=3))
  call = neutral(random_calls.call(variant, cell.shape, static.union(ARRAYS), seed), named)
  inputs = variant.inputs(cell.shape, seed, scale=size)
  loud = inputs._replace(v=inputs.v * np.float32(loudness))
  out, params = variant.run(loud, cell.shape, call) / loudness, equality.float64_params(variant, cell)
  for b in range(cell.shape.B):
    expected = variant.case.oracle(variant.variant, params, equality.example(loud, call, cell, b)) / loudness
    same(out[b][None], expected[None], f"under {sorted(named | static)}", shape=cell.shape, seed=seed)


def chunk(inputs, done):
  """The next tokens of each row, `ROOM` of them: those beyond a row's length are the real future, or repeat its end."""
  places = np.minimum(done[:, None] + np.arange(ROOM), inputs.x.shape[1] - 1)
  return Inputs(*(None if array is None else array[np.arange(ROWS)[:, None], places] for array in inputs))


@pytest.mark.parametrize("text", SPECS)
@EXAMPLES
@given(
  seed=st.integers(0, 2**16),
  lengths=st.lists(st.tuples(*[st.integers(0, ROOM)] * ROWS), min_size=3, max_size=6),
  loudness=SIZES,
)
def test_any_split_of_ragged_rows_equals_one_causal_call(text, seed, lengths, loudness):
  variant = subject(text)
  shape = variant.shape(B=ROWS, T=9, S=9, K=2)
  params, inputs = variant.params(shape.dims()), variant.inputs(shape, seed)
  inputs = inputs._replace(v=inputs.v * np.float32(loudness))
  whole = np.asarray(variant.forward(params, inputs, Call(CAUSAL))) / loudness
  state, done = variant.variant.init_state(ROWS, shape.dims(), jnp.float32), np.zeros(ROWS, int)
  for wanted in lengths:
    real = np.minimum(wanted, shape.T - done)
    state, out = variant.extend(params, state, chunk(inputs, done), jnp.asarray(real, jnp.int32), CAUSAL)
    for b in range(ROWS):
      rows, expected = np.asarray(out)[b, : real[b]] / loudness, whole[b, done[b] : done[b] + real[b]]
      same(rows, expected, f"row {b} from {done[b]}", shape=shape, seed=seed)
    done += real
