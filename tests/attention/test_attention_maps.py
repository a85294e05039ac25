"""The map of weights is read from the program that runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_lab.attention import CAUSAL, Call, Dims, Unsupported, attention_maps, spec

B, T, N, K, H = 2, 7, 4, 2, 3


def example(name):
  variant = spec.parse(name)
  heads = K if variant.claims().supports_gqa else N
  params = variant.init(jax.random.key(0), Dims(N * H, N, heads, H, H, 8))
  q, k, v = (jax.random.normal(jax.random.key(i), (B, T, n, H)) for i, n in enumerate((N, heads, heads)))
  arrays = [array if letter in variant.projections else None for letter, array in zip("qkv", (q, k, v), strict=True)]
  return variant, params, arrays


@pytest.mark.parametrize("name", ["softmax", "local(window=3)", "linear", "relative(clip=2)", "pooling", "identity"])
def test_the_map_times_the_values_is_the_output(name):
  variant, params, (q, k, v) = example(name)
  call = Call(mask=CAUSAL)
  maps = attention_maps.weights(variant, params, q, k, v, call)
  offset = variant.with_aux(params, q, k, jnp.zeros_like(v), call).out
  repeated = jnp.repeat(v, N // v.shape[2], axis=2)
  out = jnp.einsum("bnts,bsnv->btnv", maps, repeated) + offset
  np.testing.assert_allclose(out, variant.with_aux(params, q, k, v, call).out, atol=1e-5)
  assert (np.triu(np.asarray(maps), 1) == 0).all()


def test_a_variant_without_values_is_refused():
  variant, params, arrays = example("fourier")
  with pytest.raises(Unsupported, match="not affine in its values"):
    attention_maps.weights(variant, params, *arrays, Call(x=jnp.ones((B, T, N * H))))


def test_sensitivity_is_the_size_of_the_weights_where_these_exist():
  variant, params, arrays = example("softmax")
  call = Call(mask=CAUSAL)
  maps = attention_maps.weights(variant, params, *arrays, call)
  sizes = attention_maps.sensitivity(variant, params, *arrays, call)
  np.testing.assert_allclose(sizes, jnp.abs(maps) * jnp.sqrt(float(H)), atol=1e-5)


def test_sensitivity_follows_the_input_of_a_variant_without_values():
  variant, params, arrays = example("fourier")
  x = jax.random.normal(jax.random.key(5), (B, T, N * H))
  sizes = attention_maps.sensitivity(variant, params, *arrays, Call(x=x))
  assert sizes.shape == (B, 1, T, T)
  assert float(sizes.min()) > 0.0


def test_entropy_distance_and_rollout_of_maps_known_by_hand():
  uniform, diagonal = jnp.full((1, 1, 4, 4), 0.25), jnp.eye(4)[None, None]
  np.testing.assert_allclose(attention_maps.entropy(uniform), np.log(4) * np.ones((1, 1, 4)), atol=1e-6)
  np.testing.assert_allclose(attention_maps.entropy(diagonal), np.zeros((1, 1, 4)), atol=1e-6)
  np.testing.assert_allclose(attention_maps.distance(uniform)[0, 0], [1.5, 1.0, 1.0, 1.5])
  np.testing.assert_allclose(attention_maps.rollout([diagonal, diagonal]), jnp.eye(4)[None], atol=1e-6)
  np.testing.assert_allclose(attention_maps.rollout([uniform])[0, 0], [0.625, 0.125, 0.125, 0.125], atol=1e-6)
