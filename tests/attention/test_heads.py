"""A mixture by head is its parts side by side."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_lab.attention import CAUSAL, Dims, Mask, Refused, spec
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
    own = part(params[str(i)], q[:, :, 2 * i : 2 * i + 2], k[:, :, i : i + 1], v[:, :, i : i + 1], mask=CAUSAL)
    np.testing.assert_allclose(out[:, :, 2 * i : 2 * i + 2], own, atol=1e-6)


def test_a_mixture_holds_what_it_claims():
  certificate = battery.certify(spec.parse("local(window=3)+linear(chunk=4)"), quick=True)
  assert not certificate.failures, report.text(certificate)
  assert "extend in any split" in {finding.claim for finding in certificate.findings if finding.status == "proved"}


def test_a_mixture_claims_what_all_its_parts_claim():
  claims = spec.parse("softmax+linear").claims()
  assert claims.masks == spec.parse("linear").claims().masks
  assert not claims.bias
  assert claims.time == 2
  assert not claims.own_positions


def test_heads_that_cannot_be_shared_out_are_refused():
  q, k, v = inputs()
  with pytest.raises(ValueError, match="cannot be shared out as 2\\+1"):
    spec.parse("2*softmax+linear").init(jax.random.key(0), DIMS)
  with pytest.raises(Refused, match="same for all heads"):
    spec.parse("softmax+alibi")({"0": {}, "1": {}}, q, k, v, mask=Mask(explicit=jnp.ones((1, N, T, T), bool)))
