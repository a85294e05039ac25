"""The oracles of cosformer, of ssd, and of a recurrence in both directions, against closed forms and values by hand."""

import math

import numpy as np

from attention_lab.certify.cases import cosformer, gated_delta, ssd
from attention_lab.certify.oracle import Example

S, N, K, H, V, D = 6, 4, 2, 3, 2, 4
PAST, FULL = np.tri(S, dtype=bool), np.ones((S, S), bool)


def example(mask, places=np.arange(S)):
  """Self-attention with random values, N query heads on K key heads."""
  rng = np.random.default_rng(0)
  q, k, v, x = (rng.normal(size=size) for size in ((S, N, H), (S, K, H), (S, K, V), (S, D)))
  return Example(q, k, v, np.broadcast_to(mask, (N, S, S)), places, places, x)


def line(q, k, v, mask):
  """One head of width 1 at positions 0, 1, …, with an input of zeros."""
  q, k, v = (np.array(a, float)[:, None, None] for a in (q, k, v))
  return Example(q, k, v, mask[None], np.arange(len(q)), np.arange(len(k)), np.zeros((len(q), 1)))


def gate(bias, **more):
  return {"kernel": np.zeros((1, 1)), "bias": np.array([bias])} | more


def test_cosformer_equals_its_linear_form():
  places, valid = np.array([0, 2, 3, 4, 7, 8]), np.arange(S) != 1
  e = example(valid, places)
  angle = np.pi / 2 * places[:, None, None] / 9.0
  features = lambda u: np.concatenate([np.maximum(u, 0) * np.cos(angle), np.maximum(u, 0) * np.sin(angle)], axis=-1)
  q, k = features(e.q), np.repeat(features(e.k), 2, axis=1) * valid[:, None, None]
  total = np.einsum("tnh,nh->tn", q, k.sum(axis=0))[:, :, None]
  expected = np.einsum("tnh,snh,snv->tnv", q, k, np.repeat(e.v, 2, axis=1)) / np.where(total, total, 1.0)
  out = cosformer.oracle(None, {"fixed": {"length": np.array(9.0)}}, e)
  np.testing.assert_allclose(out, expected, atol=1e-12)


def test_cosformer_by_hand_gives_zeros_where_the_weights_sum_to_nothing():
  params = {"fixed": {"length": np.array(3.0)}}
  out = cosformer.oracle(None, params, line([1, -1, 2, 1], [1, 4, 2, -5], [3, 5, 7, 9], np.ones((4, 4), bool)))
  half, root = 0.5, math.sqrt(3) / 2  # cos 60°, cos 30°
  first = (3 + 4 * root * 5 + 2 * half * 7) / (1 + 4 * root + 2 * half)
  third = (half * 3 + 4 * root * 5 + 2 * 7) / (half + 4 * root + 2)
  last = (4 * half * 5 + 2 * root * 7) / (4 * half + 2 * root)
  np.testing.assert_allclose(out[:, 0, 0], [first, 0, third, last], rtol=1e-14)


def test_the_cosine_of_a_right_angle_is_zero():
  assert [cosformer.cosine(d, 3.0) for d in (-3, 3, 9)] == [0.0] * 3
  np.testing.assert_allclose([cosformer.cosine(d, 3.0) for d in (0, -1, 6)], [1, math.sqrt(3) / 2, -1], rtol=1e-14)


def test_ssd_equals_its_sum_over_products_of_decays():
  rng = np.random.default_rng(1)
  p = {"kernel": rng.normal(size=(D, K)), "bias": rng.normal(size=K), "rate": rng.normal(size=K)}
  for mask in (PAST, FULL):
    e, out = example(mask), np.zeros((S, N, V))
    step = np.log1p(np.exp(e.x @ p["kernel"] + p["bias"]))
    for n, t, s in np.ndindex(N, S, S):
      faded = np.exp(-np.exp(p["rate"]) * (step[s + 1 : t + 1].sum(axis=0) + step[t:s].sum(axis=0)))[n // 2]
      weight = mask[t, s] * faded * step[s, n // 2] * (e.q[t, n] @ e.k[s, n // 2]) / math.sqrt(H)
      out[t, n] += weight * e.v[s, n // 2]
    np.testing.assert_allclose(ssd.oracle(None, p, e), out, atol=1e-13)


def test_ssd_of_two_tokens_by_hand():
  params = gate(math.log(math.e**2 - 1), rate=np.array([math.log(math.log(2))]))  # Δ = 2, decay 1/4
  for mask, first in ((PAST[:2, :2], 16), (FULL[:2, :2], 16 + 20 / 4)):
    out = ssd.oracle(None, params, line([1, 3], [1, 5], [8, 2], mask))
    np.testing.assert_allclose(out[:, 0, 0], [first, 3 * (4 + 20)], rtol=1e-14)


def test_gated_delta_of_both_directions_by_hand():
  params = {"decay": gate(0.0, rate=np.zeros(1)), "write": gate(0.0)}  # α = β = 1/2
  forward = [8 / 2, 2 + (2 - 2) / 2, 1 + (4 - 1) / 2]
  backward = [(1 + (2 - 1) / 2) / 2, 2 / 2, 0]  # S̄ after token 2 is 2, after token 1 is 1.5; then the query's own α
  out = gated_delta.oracle(None, params, line([1, 1, 1], [1e4] * 3, [8, 2, 4], FULL[:3, :3]))
  np.testing.assert_allclose(out[:, 0, 0], np.add(forward, backward), rtol=1e-12)
