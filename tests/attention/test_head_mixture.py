"""A mixture by head is its parts side by side."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_lab.attention import CAUSAL, Dims, Mask, spec
from attention_lab.certify import battery, report

B, T, N, K, H = 2, 9, 4, 2, 6
DIMS = Dims(N * H, N, K, H, H, 16)


def inputs():
  shapes = ((B, T, N, H), (B, T, K, H), (B, T, K, H))
  return [jax.random.normal(jax.random.key(seed), shape) for seed, shape in enumerate(shapes)]


@pytest.mark.parametrize("names", [("local(window=3)", "linear"), ("alibi", "softmax")])
def test_each_part_gives_what_it_gives_alone_on_its_heads(names):
  q, k, v = inputs()
  mixture = spec.parse("+".join(names))
  params = mixture.init(jax.random.key(0), DIMS)
  out = mixture(params, q, k, v, mask=CAUSAL)
  for i, name in enumerate(names):
    part = spec.parse(name)
    alone = part(params[str(i)], q[:, :, 2 * i : 2 * i + 2], k[:, :, i : i + 1], v[:, :, i : i + 1], mask=CAUSAL)
    np.testing.assert_allclose(out[:, :, 2 * i : 2 * i + 2], alone, atol=1e-6)


def test_a_mixture_holds_what_it_claims():
  certificate = battery.certify(spec.parse("local(window=3)+linear(chunk=4)"), quick=True)
  assert not certificate.failures, report.text(certificate)
  assert "extend in any split" in {finding.claim for finding in certificate.findings if finding.status == "proved"}


def test_a_mixture_claims_what_all_its_parts_claim():
  claims = spec.parse("softmax+linear").claims()
  assert claims.masks == spec.parse("linear").claims().masks
  assert not claims.bias
  assert claims.time_exponent == 2
  assert not claims.encodes_positions


def test_heads_that_cannot_be_shared_out_are_refused():
  with pytest.raises(ValueError, match="cannot be shared out as 2\\+1"):
    spec.parse("2*softmax+linear").init(jax.random.key(0), DIMS)


def test_a_bias_and_a_pattern_for_each_head_reach_their_own_part():
  q, k, v = inputs()
  mixture = spec.parse("softmax+alibi")
  params = mixture.init(jax.random.key(0), DIMS)
  bias = jax.random.normal(jax.random.key(7), (1, N, T, T))
  explicit = jax.random.bernoulli(jax.random.key(8), 0.7, (1, N, T, T))
  out = mixture(params, q, k, v, bias=bias, mask=Mask(explicit=explicit))
  for i, name in enumerate(("softmax", "alibi")):
    heads, mask = slice(2 * i, 2 * i + 2), Mask(explicit=explicit[:, 2 * i : 2 * i + 2])
    part = spec.parse(name)(params[str(i)], q[:, :, heads], k[:, :, [i]], v[:, :, [i]], bias=bias[:, heads], mask=mask)
    np.testing.assert_allclose(out[:, :, heads], part, atol=1e-6)


def test_parts_of_a_mixture_draw_different_noise():
  mixture = spec.parse("variational+variational")
  params = mixture.init(jax.random.key(0), DIMS)
  q, k, v = inputs()
  q, k, v = (jnp.broadcast_to(array[:, :, :1], array.shape) for array in (q, k, v))
  out = mixture(params, q, k, v, key=jax.random.key(3))
  assert float(jnp.max(jnp.abs(out[:, :, 0] - out[:, :, 2]))) > 1e-3
