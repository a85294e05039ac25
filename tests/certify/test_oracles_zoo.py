"""The oracles of the second set of variants: claims of all, and each against values by hand, tables or other formulas.

Fixed patterns are in test_oracles_patterns.py, recurrences over positions in test_oracles_recurrent.py.
"""

import importlib
import math
from types import SimpleNamespace as Variant

import numpy as np
import pytest

from attention_lab.certify.cases import entmax, sparsemax, t5, top_k
from attention_lab.certify.oracle import Example

PLAIN = Variant(scale=None)
VARIANTS = {
  "cosine": Variant(scale=10.0),
  "sigmoid": PLAIN,
  "top_k": Variant(k=2, scale=None),
  "sparsemax": PLAIN,
  "entmax": PLAIN,
  "bilinear": Variant(),
  "additive": Variant(),
  "t5": Variant(buckets=8, max_distance=6, bidirectional=True, scale=1.0),
  "differential": Variant(initial=0.8, scale=None),
  "hard_coded": Variant(sigma=1.0),
  "block_local": Variant(block=3, scale=None),
  "dilated": Variant(window=2, dilation=2, scale=None),
  "sparse_strided": Variant(stride=3, scale=None),
  "longformer": Variant(window=2, global_tokens=1, scale=None),
  "relu": Variant(chunk=4),
  "taylor": Variant(chunk=4),
}
WITHOUT_BIAS = ("differential", "hard_coded", "relu", "taylor")
SHAPES = {
  "cosine": {"scale": ()},
  "bilinear": {"per_head": {"kernel": (4, 4, 4)}},
  "additive": {"per_head": {"vector": (4, 4)}},
  "t5": {"per_head": {"bias": (4, 8)}},
  "differential": {"query1": (2,), "key1": (2,), "query2": (2,), "key2": (2,)},
  "sigmoid": {"fixed": {"bias": ()}},
}
T, N, K, H, V = 5, 4, 2, 4, 2


def case(name):
  return importlib.import_module(f"attention_lab.certify.cases.{name}")


def example(kv_heads=K, **changes):
  """Random values, a mask that differs from head to head, and nothing to read for query 2."""
  rng = np.random.default_rng(0)
  mask = rng.random((N, T, T)) < 0.7
  mask[:, 2] = False
  q, k, v = rng.normal(size=(T, N, H)), rng.normal(size=(T, kv_heads, H)), rng.normal(size=(T, kv_heads, V))
  return Example(**({"q": q, "k": k, "v": v, "readable": mask, "i": np.arange(T), "j": np.arange(T)} | changes))


def column(q, k, v, mask=None):
  """One head of width 1."""
  shape = (1, len(q), len(k))
  q, k, v = (np.array(a, float)[:, None, None] for a in (q, k, v))
  mask = np.ones(shape, bool) if mask is None else np.array(mask, bool).reshape(shape)
  return Example(q, k, v, mask, np.arange(shape[1]), np.arange(shape[2]))


def params_of(name):
  rng = np.random.default_rng(1)
  draw = lambda shape: {n: draw(s) for n, s in shape.items()} if isinstance(shape, dict) else rng.normal(size=shape)
  return draw(SHAPES.get(name, {}))


def run(name, sample, params=None, **fields):
  variant = Variant(**(vars(VARIANTS[name]) | fields))
  return case(name).oracle(variant, params_of(name) if params is None else params, sample)


def products(e, q=None, k=None):
  q, k = (e.q if q is None else q), (e.k if k is None else k)
  return np.einsum("tnh,snh->nts", q, np.repeat(k, N // k.shape[1], axis=1))


def softmax(logits, mask):
  exponentials = np.where(mask, np.exp(logits), 0.0)
  total = exponentials.sum(-1, keepdims=True)
  return np.divide(exponentials, total, out=np.zeros_like(exponentials), where=total > 0)


def mixed(weights, e):
  return np.einsum("nts,snv->tnv", weights, np.repeat(e.v, N // e.v.shape[1], axis=1))


@pytest.mark.parametrize("name", VARIANTS)
def test_a_case_names_its_variant_and_its_paper(name):
  module = case(name)
  assert {spec.partition("(")[0] for spec in module.SPECS} == {name}
  assert "arXiv" in module.__doc__


@pytest.mark.parametrize("name", VARIANTS)
def test_a_query_that_may_read_nothing_returns_zeros(name):
  out = run(name, example())
  assert out.shape == (T, N, V)
  np.testing.assert_array_equal(out[2], 0.0)
  assert (np.abs(out[[0, 1, 3, 4]]).max(axis=(1, 2)) > 0).all()


@pytest.mark.parametrize("name", VARIANTS)
def test_grouped_heads_equal_key_value_heads_repeated_in_blocks(name):
  e = example()
  repeated = example(k=e.k[:, [0, 0, 1, 1]], v=e.v[:, [0, 0, 1, 1]])
  np.testing.assert_allclose(run(name, e), run(name, repeated), atol=1e-13)


@pytest.mark.parametrize("name", VARIANTS)
def test_keys_that_may_not_be_read_change_nothing(name):
  e = example()
  mask, k, v = e.readable & (np.arange(T) != 3), e.k.copy(), e.v.copy()
  k[3], v[3] = 1e2, -1e3
  np.testing.assert_array_equal(run(name, example(readable=mask)), run(name, example(readable=mask, k=k, v=v)))


@pytest.mark.parametrize("name", VARIANTS)
def test_a_bias_is_added_to_the_logits_or_refused(name):
  bias = np.random.default_rng(3).normal(size=(N, T, T))
  if name in WITHOUT_BIAS:
    with pytest.raises(ValueError, match="drop the bias"):
      run(name, example(bias=bias))
    return
  shut = np.zeros((N, T, T))
  shut[:, :, 1] = -1e9
  without = run(name, example(readable=example().readable & (np.arange(T) != 1)))
  some = np.isin(np.arange(T), [0, 3, 4])[:, None, None] & (np.abs(without) > 0)
  np.testing.assert_allclose(run(name, example(bias=shut))[some], without[some], atol=1e-12)
  assert np.abs(run(name, example(bias=bias)) - run(name, example())).max() > 1e-2


def test_cosine_reads_angles_only():
  e, g = example(), {"scale": np.array(3.0)}
  q, k = (a / np.sqrt((a**2).sum(-1, keepdims=True) + 1e-6) for a in (e.q, e.k))
  np.testing.assert_allclose(run("cosine", e, g), mixed(softmax(3 * products(e, q, k), e.readable), e), atol=1e-13)
  np.testing.assert_allclose(run("cosine", e, g), run("cosine", example(q=7 * e.q, k=2 * e.k), g), atol=1e-4)


def test_sigmoid_weights_are_not_normalised():
  params = {"fixed": {"bias": np.array(-math.log(3))}}
  out = run("sigmoid", column([0, math.log(3)], [1, 2], [4, 8]), params)
  np.testing.assert_allclose(out[:, 0, 0], [(4 + 8) / 4, 4 / 2 + 8 * 3 / 4], rtol=1e-14)


def test_top_k_keeps_ties_and_all_where_there_are_fewer():
  logits, third = [1.0, 3.0, 2.0, 3.0], 1 / (2 + math.exp(-1))
  for k, expected in ((1, [0, 0.5, 0, 0.5]), (2, [0, 0.5, 0, 0.5]), (3, [0, third, 1 - 2 * third, third])):
    np.testing.assert_allclose(top_k.weights(logits, k), expected, rtol=1e-14)
  e = example()
  np.testing.assert_allclose(run("top_k", e, k=9), mixed(softmax(products(e) / 2, e.readable), e), atol=1e-13)
  out = run("top_k", column([1], [math.log(3), -5, 0], [4, 9, 8]))
  np.testing.assert_allclose(out[0, 0, 0], (3 * 4 + 8) / 4, rtol=1e-14)


@pytest.mark.parametrize(("function", "halve", "power"), [(sparsemax.sparsemax, 1, 1), (entmax.entmax, 2, 2)])
def test_sparse_maps_solve_their_threshold_equation(function, halve, power):
  for seed in range(20):
    z = np.random.default_rng(seed).normal(size=1 + seed % 7) * (1 + seed / 4)
    low, high = z.min() / halve - 1, z.max() / halve
    for _ in range(80):
      middle = (low + high) / 2
      total = (np.maximum(z / halve - middle, 0) ** power).sum()
      low, high = (middle, high) if total > 1 else (low, middle)
    np.testing.assert_allclose(function(list(z)), np.maximum(z / halve - low, 0) ** power, atol=1e-12)
  np.testing.assert_allclose(function([5.0, 5.0]), 0.5, rtol=1e-14)
  np.testing.assert_allclose(function([1000.0, 997.0]), [1.0, 0.0], rtol=1e-14)


def test_sparse_maps_of_two_keys_by_hand():
  sample = column([1], [0.5, 0.1], [10, 20])
  np.testing.assert_allclose(run("sparsemax", sample)[0, 0, 0], 0.7 * 10 + 0.3 * 20, rtol=1e-14)
  share = (0.1 + math.sqrt(0.5 - 0.01)) ** 2  # p₁ = (x + √(1/2 − x²))² with x = (z₁ − z₂) / 4
  np.testing.assert_allclose(run("entmax", sample)[0, 0, 0], share * 10 + (1 - share) * 20, rtol=1e-14)


def test_bilinear_multiplies_query_by_matrix_by_key():
  e, params = example(), params_of("bilinear")
  turned = np.einsum("tna,nab->tnb", e.q, params["per_head"]["kernel"])
  np.testing.assert_allclose(run("bilinear", e), mixed(softmax(products(e, turned), e.readable), e), atol=1e-13)


def test_additive_scores_through_tanh():
  x = math.atanh(0.5)
  params = {"per_head": {"vector": np.array([[math.log(9)]])}}
  out = run("additive", column([1, x], [x - 1, -x - 1, -2 * x], [10, 20, 40], mask=[[1, 1, 0], [0, 0, 1]]), params)
  np.testing.assert_allclose(out[:, 0, 0], [0.9 * 10 + 0.1 * 20, 40], rtol=1e-14)
  e, w = example(), params_of("additive")["per_head"]["vector"]
  pairs = np.tanh(e.q[:, None] + np.repeat(e.k, 2, axis=1)[None])
  weights = softmax(np.einsum("nh,tsnh->nts", w, pairs), e.readable)
  np.testing.assert_allclose(run("additive", e), mixed(weights, e), atol=1e-13)


def test_t5_buckets_equal_the_literal_table_and_the_released_formula():
  both = [t5.bucket(relative, 8, 6, True) for relative in range(-7, 8)]
  assert both == [3, 3, 3, 3, 2, 2, 1, 0, 5, 6, 6, 7, 7, 7, 7]
  assert [t5.bucket(relative, 4, 6, False) for relative in range(-7, 3)] == [3, 3, 3, 3, 2, 2, 1, 0, 0, 0]
  published = {0: 0, 7: 7, 8: 8, 11: 8, 12: 9, 16: 10, 32: 12, 45: 12, 46: 13, 64: 14, 90: 14, 91: 15, 128: 15, 999: 15}
  assert {d: t5.bucket(-d, 32, 128, True) for d in published} == published
  for d in range(16, 300):
    large = 16 + math.floor(math.log(d / 16) / math.log(128 / 16) * 16 + 1e-9)
    assert t5.bucket(-d, 32, 128, False) == min(large, 31)


def test_t5_adds_the_bucket_of_key_minus_query_unscaled():
  e, params = example(i=np.arange(T) * 2, j=np.arange(T) + 1), params_of("t5")
  relative = (np.arange(T) + 1)[None] - 2 * np.arange(T)[:, None]
  column_of = np.array([3, 3, 3, 3, 2, 2, 1, 0, 5, 6, 6, 7, 7, 7, 7])[relative + 7]
  weights = softmax(products(e) + params["per_head"]["bias"][:, column_of], e.readable)
  np.testing.assert_allclose(run("t5", e), mixed(weights, e), atol=1e-13)


def test_differential_subtracts_two_maps_and_normalises():
  e, p = example(), params_of("differential")
  first, second = (softmax(products(e, e.q[..., h], e.k[..., h]) / math.sqrt(2), e.readable) for h in ([0, 1], [2, 3]))
  weight = np.exp(p["query1"] @ p["key1"]) - np.exp(p["query2"] @ p["key2"]) + 0.8
  raw = mixed(first - weight * second, e)
  expected = 0.2 * raw / np.sqrt((raw**2).mean(-1, keepdims=True) + 1e-5)
  np.testing.assert_allclose(run("differential", e), expected, atol=1e-13)


def test_differential_of_equal_halves_without_parameters_keeps_the_direction_of_softmax():
  q, k, e = example().q[..., [0, 1, 0, 1]], example().k[..., [0, 1, 0, 1]], example()
  raw = (1 - 0.6) * mixed(softmax(products(e, q, k) / 2 / math.sqrt(2), e.readable), e)
  zeros = {name: np.zeros(2) for name in SHAPES["differential"]}
  out = run("differential", example(q=q, k=k), zeros, initial=0.6)
  np.testing.assert_allclose(out, 0.4 * raw / np.sqrt((raw**2).mean(-1, keepdims=True) + 1e-5), atol=1e-13)


@pytest.mark.parametrize("name", ["relu", "taylor"])
def test_linear_kernels_equal_the_matrix_formula(name):
  e, s = example(), products(example()) / 2
  relu = products(e, np.maximum(e.q, 0), np.maximum(e.k, 0))
  weights = np.where(e.readable, relu if name == "relu" else ((s + 1) ** 2 + 1) / 2, 0.0)
  total = weights.sum(-1, keepdims=True)
  weights = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
  np.testing.assert_allclose(run(name, e), mixed(weights, e), atol=1e-13)


def test_linear_kernels_by_hand_and_relu_without_any_weight_is_zero():
  sample = column([1, -1], [1, 2, -3], [10, 20, 40])
  np.testing.assert_allclose(run("relu", sample)[:, 0, 0], [(10 + 2 * 20) / 3, 0], rtol=1e-14)
  first = (2.5 * 10 + 5 * 20 + 2.5 * 40) / 10
  np.testing.assert_allclose(run("taylor", sample)[:, 0, 0], [first, (0.5 * 10 + 20 + 8.5 * 40) / 10], rtol=1e-14)
