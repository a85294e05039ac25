"""The oracle of composed layers against numbers that can be worked out by hand."""

import dataclasses
import math

import faults
import numpy as np
import pytest

from attention_lab.attention import spec
from attention_lab.attention.composed import Composed
from attention_lab.certify import battery, composed_case
from attention_lab.certify.oracle import Example, Tokens, softmax_mean

T = 4
DIGITS = {"q": np.zeros((1, 1, 3)), "k": np.zeros((1, 1, 3)), "v": np.array([[[1.0, 10.0, 100.0]]])}


def example(readable=None, heads=1, rows=range(T), **tokens):
  """Values 1, 2, 3, 4 of one channel, each query reading its own key alone; the layer's input is 1, 2, 3, 4 too."""
  count = np.arange(1.0, T + 1)
  q, rows = np.tile(count[:, None, None], (1, heads, 1)), np.array(rows)
  readable = np.eye(T, dtype=bool) if readable is None else readable
  v, order = count[:, None, None], np.arange(T)
  return Example(
    q[rows],
    v,
    v,
    np.tile(readable[rows], (heads, 1, 1)),
    order[rows],
    order,
    x=count[rows, None],
    y=count[:, None],
    tokens=Tokens(q, rows, **tokens),
  )


def output(text, sample, **params):
  return composed_case.oracle(spec.parse(text), {"mechanism": {}} | params, sample)


def convolved(sample):
  """The values of a convolution whose three weights are 1, 10 and 100, which put the values' digits side by side."""
  return output("conv(width=3, activation='none')>softmax", sample, conv=DIGITS)[:, 0, 0].tolist()


@pytest.mark.parametrize(
  ("tokens", "values"),
  [
    ({}, [1, 12, 123, 234]),
    ({"k_segments": np.array([5, 5, 2, 2])}, [1, 12, 3, 34]),
    ({"k_segments": np.array([0, 1, 0, 0])}, [1, 2, 3, 34]),
    ({"q_segments": np.array([5, 5, 2, 2])}, [1, 12, 123, 234]),
    ({"kv_valid": np.array([True, False, True, True])}, [1, 12, 103, 34]),
    ({"q_valid": np.array([True, False, True, True])}, [1, 12, 123, 234]),
  ],
)
def test_a_convolution_reads_back_within_its_run_and_past_what_is_hidden(tokens, values):
  assert convolved(example(**tokens)) == values


def test_a_convolution_takes_an_empty_slot_for_nothing():
  assert convolved(dataclasses.replace(example(), j=np.array([0, -1, 2, 3]))) == [1, 12, 103, 34]


def test_a_convolution_of_queries_reads_tokens_that_are_not_among_the_queries():
  filters = {"q": np.array([[[0.0, 1.0]]]), "k": np.array([[[1.0, 0.0]]]), "v": np.array([[[1.0, 0.0]]])}
  all_keys = np.ones((T, T), bool)
  out = output("conv(width=2, activation='none')>softmax", example(all_keys, rows=[0, 3]), conv=filters)
  for row, query in ((0, 0.0), (1, 3.0)):
    weights = softmax_mean(example(all_keys), lambda n, t, s, q=query: q * (s + 1))
    assert out[row, 0, 0] == pytest.approx(weights[0, 0, 0])


def test_the_activation_of_a_convolution_is_silu():
  filters = {name: np.ones((1, 1, 1)) for name in "qkv"}
  out = output("conv(width=1)>softmax", example(), conv=filters)
  np.testing.assert_allclose(out[:, 0, 0], [x / (1 + math.exp(-x)) for x in (1, 2, 3, 4)])


@pytest.mark.parametrize(("kind", "key"), [("rms", 2.0), ("l2", 1.0)])
def test_queries_and_keys_of_one_channel_are_all_alike_behind_their_norm(kind, key):
  gains = {} if kind == "l2" else {"qk_norm": {"q": np.array([1.0]), "k": np.array([2.0])}}
  sample = example(np.ones((T, T), bool))
  shifted = dataclasses.replace(sample, k=sample.k - 2.5)  # keys -1.5, -0.5, 0.5, 1.5, of which the sign is left
  out = output(f"qk_norm(kind='{kind}')>softmax", shifted, **gains)
  low, high = math.exp(-key), math.exp(key)
  np.testing.assert_allclose(out[:, 0, 0], (3 * low + 7 * high) / (2 * (low + high)), rtol=1e-5)


def test_a_skip_adds_values_behind_the_convolution_and_none_of_padding():
  nothing = np.zeros((T, T), bool)
  hidden = {"kv_valid": np.array([True, True, False, True]), "q_valid": np.array([True, True, True, False])}
  scales = {"conv": DIGITS | {"q": np.zeros((2, 1, 3))}, "skip": {"scale": np.array([2.0, -1.0])}}
  out = output("conv(width=3, activation='none')>softmax>skip", example(nothing, heads=2, **hidden), **scales)
  assert out[:, 0, 0].tolist() == [2, 24, 0, 0]
  assert out[:, 1, 0].tolist() == [-1, -12, 0, 0]


def test_a_norm_is_over_a_head_or_over_the_layer():
  scales = {"skip": {"scale": np.array([3.0, 4.0])}}
  heads = output(
    "softmax>skip>norm", example(np.zeros((T, T), bool), heads=2), **scales, norm={"gain": np.array([5.0])}
  )
  np.testing.assert_allclose(heads[:, :, 0], np.full((T, 2), 5.0), rtol=1e-6)
  gain = {"norm": {"gain": np.array([[1.0], [10.0]])}}
  layer = output("softmax>skip>norm(over='layer')", example(np.zeros((T, T), bool), heads=2), **scales, **gain)
  np.testing.assert_allclose(layer[:, :, 0], np.tile(np.array([3.0, 40.0]) / math.sqrt(12.5), (T, 1)), rtol=1e-6)


@pytest.mark.parametrize(("activation", "factor"), [("sigmoid", 1.0), ("silu", 0.5)])
def test_a_gate_reads_the_layers_input_at_its_query(activation, factor):
  text = f"softmax>gate(activation='{activation}', per='head')"
  out = output(text, example(rows=[1, 3]), gate={"kernel": np.array([[[factor]]])})
  gates = [factor * x / (1 + math.exp(-factor * x)) for x in (2.0, 4.0)]
  expected = gates if activation == "silu" else [gate / x for gate, x in zip(gates, (2.0, 4.0), strict=True)]
  np.testing.assert_allclose(out[:, 0, 0], np.array([2.0, 4.0]) * expected)


def test_a_mixture_gives_each_block_of_heads_to_its_variant():
  rng = np.random.default_rng(0)
  q, k, v = rng.normal(size=(T, 4, 3)), rng.normal(size=(T, 2, 3)), rng.normal(size=(T, 2, 2))
  order = np.arange(T)
  sample = Example(q, k, v, np.ones((4, T, T), bool), order, order)
  mixture = composed_case.oracle(Composed((), spec.parse("linear+softmax"), ()), {"mechanism": {}}, sample)
  for name, heads in (("linear", slice(0, 2)), ("softmax", slice(2, 4))):
    variant = spec.parse(name)
    np.testing.assert_allclose(mixture[:, heads], battery.case_of(variant).oracle(variant, {}, sample)[:, heads])


def test_a_layer_has_a_case_where_its_mechanisms_have_one():
  assert battery.case_of(spec.parse("conv(3)>(linear+softmax)>norm")) is composed_case
  assert battery.case_of(spec.parse("published(ssd)")) is composed_case
  assert battery.case_of(Composed((), faults.Dense(), ())) is None
