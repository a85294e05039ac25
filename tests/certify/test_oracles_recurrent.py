"""The oracles that carry a state over the positions, against values by hand, matrix forms and one another."""

import dataclasses
import importlib
import math
from types import SimpleNamespace as Variant

import numpy as np
import pytest

from attention_lab.certify.cases import delta_rule, gated_delta, gated_linear, retention
from attention_lab.certify.oracle import Example

T, N, K, H, V, D = 6, 4, 2, 3, 2, 5
STATES = ("retention", "gated_linear", "delta_rule", "gated_delta", "ssd")
GATE = {"kernel": (D, K), "bias": (K,)}
SHAPES = {
  "retention": {"fixed": {"decay": (K,)}},
  "gated_linear": {"kernel": (D, K, H), "bias": (K, H)},
  "delta_rule": GATE,
  "gated_delta": {"decay": GATE | {"rate": (K,)}, "write": GATE},
  "ssd": GATE | {"rate": (K,)},
}
OPEN = 1e3  # a gate's bias at which it is 1
PAST, FULL = np.tri(T, dtype=bool), np.ones((T, T), bool)
DIRECTIONS = pytest.mark.parametrize("mask", (PAST, FULL), ids=("causal", "full"))


def params_of(name):
  rng = np.random.default_rng(1)
  draw = lambda shape: {n: draw(s) for n, s in shape.items()} if isinstance(shape, dict) else rng.normal(size=shape)
  return {"fixed": {"decay": np.array([0.9, 0.5])}} if name == "retention" else draw(SHAPES[name])


def example(readable=None, rows=slice(None), **changes):
  """Random values under a causal mask, of them the tokens `rows`."""
  rng = np.random.default_rng(0)
  q, k, v, x = (rng.normal(size=size)[rows] for size in ((T, N, H), (T, K, H), (T, K, V), (T, D)))
  mask = np.tri(len(q), dtype=bool) if readable is None else readable
  fields = {"q": q, "k": k, "v": v, "x": x, "i": np.arange(len(q)), "j": np.arange(len(q))}
  return Example(**(fields | {"readable": np.broadcast_to(mask, (N, len(q), len(q)))} | changes))


def single(q, k, v):
  """One head of width len(k[0]), causal, with an input of zeros."""
  q, k, v = (np.array(a, float)[:, None] for a in (q, k, v))
  return Example(q, k, v, np.tri(len(q), dtype=bool)[None], np.arange(len(q)), np.arange(len(q)), np.zeros((len(q), 1)))


def gate(bias):
  return {"kernel": np.zeros((1, 1)), "bias": np.array([bias])}


def run(name, sample, params=None):
  module = importlib.import_module(f"attention_lab.certify.cases.{name}")
  return module.oracle(Variant(chunk=4, temperature=2.0), params_of(name) if params is None else params, sample)


@pytest.mark.parametrize("name", STATES)
def test_a_case_names_its_variant_and_its_paper(name):
  module = importlib.import_module(f"attention_lab.certify.cases.{name}")
  assert all(spec.partition("(")[0] == name for spec in module.SPECS)
  assert "arXiv" in module.__doc__


@DIRECTIONS
@pytest.mark.parametrize("name", STATES)
def test_segments_start_from_an_empty_state(name, mask):
  ids, places = np.array([0, 0, 1, 1, 1, 2]), np.array([0, 1, 0, 1, 2, 0])
  packed = run(name, example(mask & (ids[:, None] == ids), i=places, j=places))
  for start, stop in ((0, 2), (2, 5), (5, 6)):
    alone = run(name, example(mask[start:stop, start:stop], rows=slice(start, stop)))
    np.testing.assert_allclose(packed[start:stop], alone, atol=1e-14)


@DIRECTIONS
@pytest.mark.parametrize("name", STATES)
def test_a_key_that_is_padding_is_as_if_it_were_not_there(name, mask):
  keep = [0, 2, 3, 5]
  out = run(name, example(mask & np.isin(np.arange(T), keep)))
  np.testing.assert_allclose(out[keep], run(name, example(mask[np.ix_(keep, keep)], rows=keep)), atol=1e-14)


@pytest.mark.parametrize("name", STATES)
def test_a_query_whose_key_is_padding_reads_what_its_neighbour_read(name):
  keep = [0, 2, 3, 5]
  out = run(name, example(PAST & np.isin(np.arange(T), keep)))
  e = example()
  between = run(name, example(q=e.q[[0, 0, 2, 3, 3, 5]], readable=PAST & np.isin(np.arange(T), keep)))
  np.testing.assert_allclose(between[[1, 4]], out[[0, 3]], atol=1e-14)


@DIRECTIONS
@pytest.mark.parametrize("name", STATES)
def test_a_query_that_is_padding_gives_zeros_and_its_key_stays(name, mask):
  valid = np.arange(T) != 2
  out = run(name, example(mask & valid[:, None]))
  np.testing.assert_array_equal(out[2], 0.0)
  np.testing.assert_allclose(out[valid], run(name, example(mask))[valid], atol=1e-14)


@DIRECTIONS
@pytest.mark.parametrize("name", STATES)
def test_a_part_of_the_queries_gives_that_part_of_the_rows(name, mask):
  e, rows = example(mask), [1, 4]
  part = dataclasses.replace(e, q=e.q[rows], x=e.x[rows], y=e.x, i=e.i[rows], readable=e.readable[:, rows])
  np.testing.assert_array_equal(run(name, part), run(name, e)[rows])


@pytest.mark.parametrize("name", STATES)
def test_later_keys_are_read_as_a_causal_run_over_the_reversed_sequence_up_to_an_own_key_of_zero(name):
  e, causal, both = example(), run(name, example()), run(name, example(FULL))
  np.testing.assert_array_equal(both[-1], causal[-1])
  for t in range(T - 1):
    rows = [*range(T - 1, t, -1), t]
    k = e.k[rows]
    k[-1] = 0.0
    later = run(name, example(PAST[: T - t, : T - t], rows=rows, k=k))[-1]
    assert np.abs(later).max() > 1e-3
    np.testing.assert_allclose(both[t] - causal[t], later, atol=1e-14)


def test_retention_of_both_directions_counts_the_valid_tokens_between():
  e, valid = example(), np.array([True, True, False, True, False, True])
  out = run("retention", example(FULL & valid))
  for n, decay in enumerate([0.9, 0.9, 0.5, 0.5]):
    for t in range(T):
      expected = np.zeros(V)
      for s in np.flatnonzero(valid):
        count = valid[s + 1 : t + 1].sum() + valid[t:s].sum()
        expected += decay**count * (e.q[t, n] @ e.k[s, n // 2]) * e.v[s, n // 2] / math.sqrt(H)
      np.testing.assert_allclose(out[t, n], expected, atol=1e-14)


@pytest.mark.parametrize("name", STATES)
def test_each_query_head_reads_the_state_of_its_group(name):
  e, full = example(), run(name, example())
  swapped = example(q=e.q[:, [1, 0, 3, 2]])
  np.testing.assert_allclose(run(name, swapped), full[:, [1, 0, 3, 2]], atol=1e-14)
  k, v = e.k.copy(), e.v.copy()
  k[:, 1], v[:, 1] = 7.0, 7.0
  other = run(name, example(k=k, v=v))
  np.testing.assert_array_equal(other[:, :2], full[:, :2])
  assert (np.abs(other - full)[:, 2:] > 1e-6).any(axis=(0, 2)).all()


@pytest.mark.parametrize("name", STATES)
def test_a_bias_is_refused(name):
  with pytest.raises(ValueError, match="drop the bias"):
    run(name, example(bias=np.zeros((N, T, T))))


def test_gates_are_of_the_keys_own_input():
  e = example()
  for name in STATES[1:]:
    apart = example(x=np.zeros((T, D)), y=e.x)
    np.testing.assert_array_equal(run(name, apart), run(name, e))
    assert np.abs(run(name, example(x=e.x + 1.0)) - run(name, e)).max() > 1e-3


def test_retention_equals_its_parallel_form():
  e, distance = example(), np.arange(T)[:, None] - np.arange(T)
  for n, decay in enumerate([0.9, 0.9, 0.5, 0.5]):
    weights = np.tril(e.q[:, n] @ e.k[:, n // 2].T * decay ** np.maximum(distance, 0)) / math.sqrt(H)
    np.testing.assert_allclose(run("retention", e)[:, n], weights @ e.v[:, n // 2], atol=1e-14)


def test_retention_decays_are_the_published_ones():
  assert retention.decays(4) == [31 / 32, 63 / 64, 127 / 128, 255 / 256]


def test_gated_linear_with_open_gates_is_unnormalised_linear_attention():
  e, params = example(), {"kernel": np.zeros((D, K, H)), "bias": np.full((K, H), OPEN)}
  weights = np.einsum("tnh,snh->nts", e.q, np.repeat(e.k, 2, axis=1)) * np.tri(T) / math.sqrt(H)
  expected = np.einsum("nts,snv->tnv", weights, np.repeat(e.v, 2, axis=1))
  np.testing.assert_allclose(run("gated_linear", e, params), expected, atol=1e-14)


def test_gated_linear_equals_its_sum_over_products_of_gates():
  e, p = example(), params_of("gated_linear")
  gates = (1 / (1 + np.exp(-np.einsum("td,dkh->tkh", e.x, p["kernel"]) - p["bias"]))) ** 0.5
  out = np.zeros((T, N, V))
  for t in range(T):
    for s in range(t + 1):
      faded = np.repeat(gates[s + 1 : t + 1].prod(axis=0) * e.k[s], 2, axis=0)
      out[t] += (e.q[t] * faded).sum(-1, keepdims=True) * np.repeat(e.v[s], 2, axis=0) / math.sqrt(H)
  np.testing.assert_allclose(run("gated_linear", e), out, atol=1e-14)


def test_gated_linear_of_two_tokens_by_hand():
  params = {"kernel": np.zeros((1, 1, 1)), "bias": np.zeros((1, 1))}
  out = gated_linear.oracle(Variant(temperature=2.0), params, single([[2], [3]], [[1], [5]], [[10], [1]]))
  np.testing.assert_allclose(out[:, 0, 0], [20, 3 * (10 * math.sqrt(0.5) + 5)], rtol=1e-14)


def test_delta_rule_on_orthonormal_keys_recalls_every_value():
  keys = np.linalg.qr(np.random.default_rng(2).normal(size=(4, 4)))[0]
  v = np.random.default_rng(3).normal(size=(5, 2))
  written = np.array([0, 1, 2, 3, 1])
  for asked, newest in ((0, 0), (1, 4), (2, 2), (3, 3)):
    sample = single(np.tile(2 * keys[asked], (5, 1)), 1e4 * keys[written], v)  # 2 = √H
    out = delta_rule.oracle(None, gate(OPEN), sample)
    np.testing.assert_allclose(out[4, 0], v[newest], atol=1e-12)
    np.testing.assert_allclose(out[3, 0], v[asked], atol=1e-12)


def test_delta_rule_of_a_repeated_key_moves_halfway_by_hand():
  out = delta_rule.oracle(None, gate(0.0), single([[1], [3]], [[1e4], [1e4]], [[8], [2]]))
  np.testing.assert_allclose(out[:, 0, 0], [4, 3 * 3], rtol=1e-12)


def test_delta_rule_guards_the_length_of_a_key():
  out = delta_rule.oracle(None, gate(OPEN), single([[1], [1]], [[1e-3], [0]], [[8], [2]]))
  np.testing.assert_allclose(out[:, 0, 0], [8 / math.sqrt(2)] * 2, rtol=1e-14)


def test_gated_delta_that_never_fades_is_the_delta_rule():
  params = params_of("gated_delta")
  params["decay"]["rate"] = np.full(K, -OPEN)
  np.testing.assert_array_equal(run("gated_delta", example(), params), run("delta_rule", example(), params["write"]))


def test_gated_delta_of_two_tokens_by_hand():
  params = {"decay": gate(0.0) | {"rate": np.zeros(1)}, "write": gate(0.0)}  # α = exp(−log 2), β = 1/2
  out = gated_delta.oracle(None, params, single([[1], [1]], [[1e4], [1e4]], [[8], [2]]))
  np.testing.assert_allclose(out[:, 0, 0], [4, 2 + (2 - 2) / 2], rtol=1e-12)
  doubled = params | {"decay": gate(0.0) | {"rate": np.array([math.log(2)])}}  # α = 1/4
  out = gated_delta.oracle(None, doubled, single([[1], [1]], [[1e4], [1e4]], [[8], [3]]))
  np.testing.assert_allclose(out[:, 0, 0], [4, 1 + (3 - 1) / 2], rtol=1e-12)


def test_gated_delta_equals_its_product_of_transitions():
  e, p = example(), params_of("gated_delta")
  alpha = np.exp(-np.exp(p["decay"]["rate"]) * np.log1p(np.exp(e.x @ p["decay"]["kernel"] + p["decay"]["bias"])))
  beta = 1 / (1 + np.exp(-e.x @ p["write"]["kernel"] - p["write"]["bias"]))
  k, out = e.k / np.sqrt((e.k**2).sum(-1, keepdims=True) + 1e-6), run("gated_delta", e)
  for n in range(N):
    g, state = n // 2, np.zeros((H, V))
    for t in range(T):
      turn = np.eye(H) - beta[t, g] * np.outer(k[t, g], k[t, g])
      state = alpha[t, g] * turn @ state + beta[t, g] * np.outer(k[t, g], e.v[t, g])
      np.testing.assert_allclose(out[t, n], e.q[t, n] @ state / math.sqrt(H), atol=1e-14)
