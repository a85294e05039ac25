"""The oracles without a T×S softmax, against cases by hand, published identities and other formulas."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from attention_lab.certify.cases import fourier, identity, linear, linformer, performer, pooling, softmax
from attention_lab.certify.oracle import Example

T, N, K, H, V = 5, 4, 2, 3, 2


def column(q, k, v, mask=None):
  """One head of width 1."""
  shape = (1, len(q), len(k))
  q, k, v = (np.array(a, float)[:, None, None] for a in (q, k, v))
  mask = np.ones(shape, bool) if mask is None else np.array(mask, bool).reshape(shape)
  return Example(q, k, v, mask, np.arange(shape[1]), np.arange(shape[2]))


def example(valid):
  """Grouped heads of random values, with the same keys readable by all queries."""
  rng = np.random.default_rng(0)
  q, k, v = rng.normal(size=(T, N, H)), rng.normal(size=(T, K, H)), rng.normal(size=(T, K, V))
  return Example(q, k, v, np.broadcast_to(np.array(valid, bool), (N, T, T)), np.arange(T), np.arange(T))


def test_linear_equals_the_two_by_two_case_by_hand():
  sample = column([1, -1], [0, 2], [3, 5], mask=[[1, 0], [1, 1]])
  np.testing.assert_allclose(linear.oracle(None, {}, sample)[:, 0, 0], [3, (1 * 3 + 3 * 5) / 4], rtol=1e-14)
  wide = Example(
    q=np.array([[[1.0, -math.log(2)]]]), k=np.array([[[0.0, 1.0]], [[-math.log(4), 0.0]]]),
    v=np.array([[[1.0]], [[10.0]]]), readable=np.ones((1, 1, 2), bool), i=np.arange(1), j=np.arange(2),
  )  # fmt: skip
  np.testing.assert_allclose(linear.oracle(None, {}, wide)[0, 0, 0], (3 * 1 + 1 * 10) / (3 + 1), rtol=1e-14)


def test_performer_with_two_opposite_directions_is_a_cosh_kernel():
  q, k, v = np.array([0.5, -1.0]), np.array([0.3, -0.7, 1.1]), np.array([1.0, 2.0, 4.0])
  params = {"fixed": {"directions": np.array([[1.0], [-1.0]])}}
  out = performer.oracle(None, params, column(q, k, v))
  kernel = np.exp(-(k**2) / 2) * np.cosh(q[:, None] + k)
  np.testing.assert_allclose(out[:, 0, 0], kernel @ v / kernel.sum(1), rtol=1e-14)


def test_performer_features_average_to_the_softmax_kernel():
  rng = np.random.default_rng(0)
  directions = rng.normal(size=(40_000, 4))
  for scale in (0.25, 0.5):
    q, k = scale * rng.normal(size=(2, 4))
    products = np.exp(performer.exponents(q, directions) + performer.exponents(k, directions))
    error = abs(products.mean() - math.exp(q @ k / 2))
    assert error < 4 * products.std() / 200 < 0.1 * math.exp(q @ k / 2)


def test_linformer_that_keeps_every_key_is_softmax():
  sample, params = example([1, 1, 1, 1, 1]), {"keys": np.eye(T), "values": np.eye(T)}
  out = linformer.oracle(SimpleNamespace(rank=T), params, sample)
  expected = softmax.oracle(SimpleNamespace(scale=None, soft_cap=None), {}, sample)
  np.testing.assert_allclose(out, expected, atol=1e-13)


def test_linformer_drops_padding_before_it_projects():
  e, rows, rng = example([1, 1, 0, 1, 0]), [0, 1, 3], np.random.default_rng(1)
  params = {"keys": rng.normal(size=(T + 2, 3)), "values": rng.normal(size=(T + 2, 3))}
  k = np.einsum("sr,snh->rnh", params["keys"][rows], np.repeat(e.k[rows], N // K, axis=1))
  v = np.einsum("sr,snv->rnv", params["values"][rows], np.repeat(e.v[rows], N // K, axis=1))
  weights = np.exp(np.einsum("tnh,rnh->ntr", e.q, k) / math.sqrt(H))
  weights /= weights.sum(-1, keepdims=True)
  out = linformer.oracle(SimpleNamespace(rank=3), params, e)
  np.testing.assert_allclose(out, np.einsum("ntr,rnv->tnv", weights, v), atol=1e-13)


def test_pooling_is_the_running_mean_under_a_causal_mask():
  v = np.array([3.0, 5.0, 10.0])
  sample = Example(None, None, v[:, None, None], np.tri(3, dtype=bool)[None], np.arange(3), np.arange(3))
  np.testing.assert_allclose(pooling.oracle(None, {}, sample)[:, 0, 0], [3, 4, 6], rtol=1e-14)


def test_identity_returns_the_own_value_of_each_query():
  v = np.array([[[1.0], [2.0]], [[3.0], [4.0]], [[5.0], [6.0]]])
  mask = np.ones((4, 3, 3), bool)
  mask[3, 1, 1] = False
  out = identity.oracle(None, {}, Example(None, None, v, mask, np.arange(3), np.arange(3)))
  np.testing.assert_array_equal(out[..., 0], [[1, 1, 2, 2], [3, 3, 4, 0], [5, 5, 6, 6]])


@pytest.mark.parametrize("shape", [(1, 1), (5, 4), (7, 6)])
def test_fourier_equals_the_fast_transform(shape):
  x = np.random.default_rng(0).normal(size=shape)
  everywhere = np.ones((1, shape[0], shape[0]), bool)
  sample = Example(None, None, None, everywhere, np.arange(shape[0]), np.arange(shape[0]), x=x, y=x)
  np.testing.assert_allclose(fourier.oracle(None, {}, sample), np.fft.fft2(x).real, atol=1e-12)
  np.testing.assert_allclose(fourier.transform(x[0]), np.fft.fft(x[0]), atol=1e-12)


def test_fourier_refuses_a_mask():
  sample = Example(None, None, None, np.tri(3, dtype=bool)[None], np.arange(3), np.arange(3), x=np.ones((3, 2)))
  with pytest.raises(ValueError, match="takes no mask"):
    fourier.oracle(None, {}, sample)
