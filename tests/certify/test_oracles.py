"""Claims of all oracles, and those with a softmax over keys against tables by hand, published values or formulas."""

import importlib
import math
from types import SimpleNamespace

import numpy as np
import pytest

from attention_lab.certify.cases import alibi
from attention_lab.certify.oracle import Example

SOFTMAX = SimpleNamespace(scale=None, soft_cap=None)
VARIANTS = {
  "softmax": SOFTMAX,
  "local": SimpleNamespace(window=3, scale=None),
  "relative": SimpleNamespace(clip=2, scale=None),
  "alibi": SimpleNamespace(scale=None),
  "talking_heads": SimpleNamespace(scale=None),
  "linear": SimpleNamespace(chunk=4),
  "performer": SimpleNamespace(features=8, chunk=4),
  "linformer": SimpleNamespace(rank=3),
  "pooling": SimpleNamespace(chunk=4),
  "identity": SimpleNamespace(),
  "fourier": SimpleNamespace(),
}
MIXERS = tuple(name for name in VARIANTS if name != "fourier")
WITH_BIAS = ("softmax", "local", "relative", "alibi", "talking_heads")
T, S, N, K, H, V = 5, 5, 4, 2, 3, 2


def case(name):
  return importlib.import_module(f"attention_lab.certify.cases.{name}")


def example(seed=0, kv_heads=K, **changes):
  """A random example whose mask differs from head to head and leaves query 2 of every head nothing to read."""
  rng = np.random.default_rng(seed)
  mask = rng.random((N, T, S)) < 0.7
  mask[:, 2] = False
  fields = {
    "q": rng.normal(size=(T, N, H)), "k": rng.normal(size=(S, kv_heads, H)), "v": rng.normal(size=(S, kv_heads, V)),
    "readable": mask, "i": np.arange(T), "j": np.arange(S),
  }  # fmt: skip
  return Example(**(fields | changes))


def column(q, k, v, mask=None):
  """One head of width 1."""
  shape = (1, len(q), len(k))
  q, k, v = (np.array(a, float)[:, None, None] for a in (q, k, v))
  mask = np.ones(shape, bool) if mask is None else np.array(mask, bool).reshape(shape)
  return Example(q, k, v, mask, np.arange(shape[1]), np.arange(shape[2]))


def params_of(name, seed=1):
  rng = np.random.default_rng(seed)
  shapes = {
    "relative": {"keys": (5, H), "values": (5, V)},
    "talking_heads": {"logits": (N, N), "weights": (N, N)},
    "linformer": {"keys": (S + 1, 3), "values": (S + 1, 3)},
  }
  if name == "alibi":
    return {"fixed": {"per_head": {"slopes": rng.random(N)}}}
  if name == "performer":
    return {"fixed": {"directions": rng.normal(size=(8, H))}}
  return {leaf: rng.normal(size=shape) for leaf, shape in shapes.get(name, {}).items()}


def run(name, sample, params=None, variant=None):
  return case(name).oracle(variant or VARIANTS[name], params_of(name) if params is None else params, sample)


def dense_softmax(logits, mask):
  """Masked softmax over the last axis by infinities; a row of them gives zeros."""
  logits = np.where(mask, logits, -np.inf)
  top = np.where(mask.any(-1, keepdims=True), logits.max(-1, keepdims=True), 0.0)
  exponentials = np.exp(logits - top)
  total = exponentials.sum(-1, keepdims=True)
  return np.divide(exponentials, total, out=np.zeros_like(logits), where=total > 0)


def dense_logits(e, scale=H**-0.5):
  return scale * np.einsum("tnh,snh->nts", e.q, np.repeat(e.k, N // e.k.shape[1], axis=1))


def dense_out(weights, e):
  return np.einsum("nts,snv->tnv", weights, np.repeat(e.v, N // e.v.shape[1], axis=1))


@pytest.mark.parametrize("name", VARIANTS)
def test_a_case_names_its_variant_and_its_paper(name):
  module = case(name)
  assert isinstance(module.SPECS, tuple)
  assert module.SPECS
  assert all(spec.partition("(")[0] == name for spec in module.SPECS)
  assert "arXiv" in module.__doc__
  assert "§" in module.__doc__


@pytest.mark.parametrize("name", MIXERS)
def test_a_query_that_may_read_nothing_returns_zeros(name):
  diagonal = np.broadcast_to(np.eye(T, S, dtype=bool), (N, T, S)).copy()
  diagonal[:, 2] = False
  params = params_of(name)
  if name == "talking_heads":
    params = {leaf: np.abs(matrix) for leaf, matrix in params.items()}
  out = run(name, example(readable=diagonal), params)
  assert out.shape == (T, N, V)
  np.testing.assert_array_equal(out[2], 0.0)
  assert (np.abs(out[[0, 1, 3, 4]]) > 0).all()


@pytest.mark.parametrize("name", MIXERS)
def test_grouped_heads_equal_key_value_heads_repeated_in_blocks(name):
  grouped = example(kv_heads=2)
  repeated = example(k=grouped.k[:, [0, 0, 1, 1]], v=grouped.v[:, [0, 0, 1, 1]], readable=grouped.readable)
  np.testing.assert_allclose(run(name, grouped), run(name, repeated), atol=1e-13)


@pytest.mark.parametrize("name", MIXERS)
def test_keys_that_may_not_be_read_change_nothing(name):
  sample = example()
  shared = np.broadcast_to(sample.readable[:1] & (np.arange(S) != 3), (N, T, S))
  k, v = sample.k.copy(), sample.v.copy()
  k[3], v[3] = 1e2, -1e3
  np.testing.assert_array_equal(run(name, example(readable=shared)), run(name, example(readable=shared, k=k, v=v)))


@pytest.mark.parametrize("name", MIXERS)
def test_a_bias_is_added_or_refused_but_never_ignored(name):
  with_bias = example(bias=np.random.default_rng(3).normal(size=(N, T, S)))
  if name in WITH_BIAS:
    assert np.abs(run(name, with_bias) - run(name, example())).max() > 1e-2
  else:
    with pytest.raises(ValueError, match="drop the bias"):
      run(name, with_bias)


def test_softmax_of_one_two_three_is_the_golden_table():
  out = run("softmax", column([1, 2, 3], [1, 2, 3], [1, 2, 3]), variant=SimpleNamespace(scale=1.0, soft_cap=None))
  golden = [2.5752103826044414, 2.8509370922208681, 2.9479745786165826]
  np.testing.assert_allclose(out[:, 0, 0], golden, rtol=1e-14)


def test_causal_softmax_of_one_two_three_is_the_golden_table():
  sample = column([1, 2, 3], [1, 2, 3], [1, 2, 3], mask=[[1, 0, 0], [1, 1, 0], [1, 1, 1]])
  out = run("softmax", sample, variant=SimpleNamespace(scale=1.0, soft_cap=None))
  np.testing.assert_allclose(out[:, 0, 0], [1, 1 + 1 / (1 + math.exp(-2)), 2.9479745786165826], rtol=1e-14)


@pytest.mark.parametrize(("scale", "cap"), [(None, None), (0.3, None), (0.3, 0.5)])
def test_softmax_equals_the_masked_matrix_formula(scale, cap):
  e = example(bias=np.random.default_rng(3).normal(size=(N, T, S)))
  logits = dense_logits(e, 1 / math.sqrt(H) if scale is None else scale)
  logits = (logits if cap is None else cap * np.tanh(logits / cap)) + e.bias
  out = run("softmax", e, variant=SimpleNamespace(scale=scale, soft_cap=cap))
  np.testing.assert_allclose(out, dense_out(dense_softmax(logits, e.readable), e), atol=1e-13)


def test_a_local_window_of_three_reads_five_keys_and_honours_the_mask():
  table = [[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0],
           [0, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1]]  # fmt: skip
  v = [1, 2, 4, 8, 16, 32]
  full, causal = np.array(table), np.tril(table)
  mean = lambda mask: mask @ v / mask.sum(1)
  np.testing.assert_allclose(run("local", column([0] * 6, [5] * 6, v))[:, 0, 0], mean(full), rtol=1e-14)
  below = column([0] * 6, [5] * 6, v, mask=np.tri(6))
  np.testing.assert_allclose(run("local", below)[:, 0, 0], mean(causal), rtol=1e-14)


def test_a_local_window_follows_positions_and_not_indices():
  sample = example(readable=np.ones((N, T, S), bool), i=np.array([4, 3, 2, 1, 0]), j=np.array([10, 4, 0, 11, 3]))
  near = np.array([[0, 1, 0, 0, 1], [0, 1, 0, 0, 1], [0, 0, 1, 0, 1], [0, 0, 1, 0, 1], [0, 0, 1, 0, 0]], bool)
  near[2, 1] = True  # |2 − 4| < 3
  weights = dense_softmax(dense_logits(sample), np.broadcast_to(near, (N, T, S)))
  np.testing.assert_allclose(run("local", sample), dense_out(weights, sample), atol=1e-13)


def test_relative_equals_the_two_by_two_case_by_hand():
  sample = column([1, 2], [1, 2], [1, 2])
  params = {"keys": np.array([[0.1], [0.2], [0.3]]), "values": np.array([[10.0], [20.0], [30.0]])}
  out = run("relative", sample, params, SimpleNamespace(clip=1, scale=1.0))
  np.testing.assert_allclose(out[:, 0, 0], [21 + 11 / (1 + math.exp(-1.1)), 11 + 11 / (1 + math.exp(-2.2))], rtol=1e-14)
  halved = run("relative", sample, params, SimpleNamespace(clip=1, scale=0.5))
  np.testing.assert_allclose(halved[:, 0, 0], [21 + 11 / (1 + math.exp(-0.55)), 11 + 11 / (1 + math.exp(-1.1))])


def test_relative_equals_the_formula_with_gathered_tables():
  e, params = example(i=np.arange(T) + 3), params_of("relative")
  rows = np.clip(np.arange(S)[None] - (np.arange(T) + 3)[:, None], -2, 2) + 2
  logits = dense_logits(e) + np.einsum("tnh,tsh->nts", e.q, params["keys"][rows]) / math.sqrt(H)
  weights = dense_softmax(logits, e.readable)
  expected = dense_out(weights, e) + np.einsum("nts,tsv->tnv", weights, params["values"][rows])
  np.testing.assert_allclose(run("relative", e), expected, atol=1e-13)


def test_alibi_slopes_are_the_published_ones():
  eight = [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256]
  assert alibi.slopes(8) == eight
  np.testing.assert_allclose(alibi.slopes(12), [*eight, 2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5], rtol=1e-15)
  np.testing.assert_allclose(alibi.slopes(16), [2 ** -(n / 2) for n in range(1, 17)], rtol=1e-15)
  assert alibi.slopes(1) == [2**-8]
  assert alibi.slopes(3) == [2**-4, 2**-8, 2**-2]


def test_alibi_without_queries_decays_geometrically_to_both_sides():
  sample = column([0, 0, 0], [7, 8, 9], [1, 10, 100])
  params = {"fixed": {"per_head": {"slopes": np.array([math.log(2)])}}}
  out = run("alibi", sample, params)[:, 0, 0]
  np.testing.assert_allclose(out, [(1 + 5 + 25) / 1.75, (0.5 + 10 + 50) / 2, (0.25 + 5 + 100) / 1.75], rtol=1e-14)


def test_alibi_equals_the_formula_on_shifted_positions():
  e, params = example(i=np.arange(T) * 2, j=np.arange(S) + 4), params_of("alibi")
  distance = np.abs(np.arange(T)[:, None] * 2 - np.arange(S)[None] - 4)
  logits = dense_logits(e) - params["fixed"]["per_head"]["slopes"][:, None, None] * distance
  np.testing.assert_allclose(run("alibi", e), dense_out(dense_softmax(logits, e.readable), e), atol=1e-13)


def test_talking_heads_with_identities_is_softmax():
  e, eye = example(), {"logits": np.eye(N), "weights": np.eye(N)}
  np.testing.assert_allclose(run("talking_heads", e, eye), run("softmax", e), atol=1e-13)


def test_talking_heads_mix_from_rows_to_columns():
  e, params = example(bias=np.random.default_rng(3).normal(size=(N, T, S))), params_of("talking_heads")
  logits = np.tensordot(params["logits"].T, dense_logits(e), axes=1) + e.bias
  weights = np.tensordot(params["weights"].T, dense_softmax(logits, e.readable), axes=1)
  np.testing.assert_allclose(run("talking_heads", e), dense_out(weights, e), atol=1e-13)
