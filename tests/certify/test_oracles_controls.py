"""The oracles with latents, with positions inside and without attention: by hand, by matrices, by other formulas."""

import numpy as np
import pytest
from scored_examples import (
  D,
  H,
  N,
  R,
  T,
  V,
  attended,
  close,
  example,
  mixed,
  params_of,
  per_query_head,
  products,
  run,
)

from attention_lab.certify.cases import disentangled, mla, token_mixer, transformer_xl

I = np.arange(T)
AWAY = I[:, None] - I  # i − j


def rotated(x, positions, base):
  """RoPE by complex numbers, `T … R`."""
  half = x.shape[-1] // 2
  phases = np.exp(1j * np.multiply.outer(positions, base ** (-np.arange(half) / half)))
  phases = phases.reshape(len(x), *[1] * (x.ndim - 2), half)
  z = (x[..., :half] + 1j * x[..., half:]) * phases
  return np.concatenate([z.real, z.imag], axis=-1)


def over_root_mean_square(x):
  return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)


@pytest.mark.parametrize("query_rank", [0, 2])
def test_mla_equals_the_formula_by_matrices(query_rank):
  y, params = np.random.default_rng(5).normal(size=(T, D)), params_of("mla")
  e, tables = example("mla", y=y, i=3 * I, j=2 * I + 1), params["per_head"]
  if not query_rank:
    tables["query"] = np.random.default_rng(6).normal(size=(N, D, H + R))
    del params["query"]
  latent = over_root_mean_square(y @ params["down"])
  u = over_root_mean_square(e.x @ params["query"]) if query_rank else e.x
  q = np.einsum("td,ndh->tnh", u, tables["query"])
  logits = np.einsum("tnh,sr,nrh->nts", q[..., :H], latent, tables["keys"])
  logits += np.einsum("tnr,sr->nts", rotated(q[..., H:], 3 * I, 100.0), rotated(y @ params["rope"], 2 * I + 1, 100.0))
  values = np.einsum("sr,nrv->snv", latent, tables["values"])
  expected = attended(logits / np.sqrt(H + R), example("mla", v=values))
  close("mla", e, expected, params, query_rank=query_rank)


def test_mla_reads_distances_and_no_places():
  close("mla", example("mla", i=I + 7, j=I + 7), run("mla", example("mla")))
  assert np.abs(run("mla", example("mla", i=I + 1)) - run("mla", example("mla"))).max() > 1e-2


def test_mla_turns_half_split_pairs_each_at_its_frequency():
  turned = mla.turned(np.array([1.0, 2.0, 3.0, 4.0]), 2, (4 / np.pi) ** 2)  # angles 2, and 2 · π/4
  first = [np.cos(2) - 3 * np.sin(2), 3 * np.cos(2) + np.sin(2)]
  np.testing.assert_allclose(turned[[0, 2]], first, rtol=1e-14)
  np.testing.assert_allclose(turned[[1, 3]], [-4.0, 2.0], atol=1e-14)


def test_shared_reads_queries_or_values_as_keys():
  e = example("shared_qk")
  close("shared_qk", example("shared_qk", k=None), attended(products(e, k=e.q) / np.sqrt(H), e), values=False)
  close("shared_qk", example("shared_qk", q=None, k=None), attended(products(e, e.v, e.v) / np.sqrt(V), e), values=True)
  part = example("shared_qk", q=e.q[:2], k=None, x=e.x[:2], i=I[:2], readable=e.readable[:, :2])
  with pytest.raises(ValueError, match="give all of them"):
    run("shared_qk", part, values=False)


@pytest.mark.parametrize("memory", [0, 2])
def test_transformer_xl_equals_the_four_terms_of_the_paper(memory):
  e, tables = example(i=I + 1), params_of("transformer_xl")["per_head"]
  angles = np.multiply.outer(AWAY + 1, 10000.0 ** (-np.array([0, 2, 4]) / D))
  r = np.einsum("tsd,ndh->ntsh", np.concatenate([np.sin(angles), np.cos(angles)], axis=-1), tables["kernel"])
  k = per_query_head(e.k)
  logits = products(e) + np.einsum("tnh,ntsh->nts", e.q, r)
  logits += np.einsum("nh,snh->ns", tables["content"], k)[:, None] + np.einsum("nh,ntsh->nts", tables["position"], r)
  allowed = (np.abs(AWAY + 1) < memory) | (memory == 0)
  close("transformer_xl", e, attended(logits / np.sqrt(H), e, allowed), memory=memory)


def test_transformer_xl_has_all_sines_before_all_cosines():
  np.testing.assert_array_equal(transformer_xl.sinusoid(0, 4), [0, 0, 1, 1])
  expected = [np.sin(-3), np.sin(-0.03), np.cos(3), np.cos(0.03)]
  np.testing.assert_allclose(transformer_xl.sinusoid(-3, 4), expected, rtol=1e-14)


def test_disentangled_buckets_are_the_literal_table():
  assert [disentangled.bucket(d, 2) for d in range(-4, 5)] == [0, 0, 0, 1, 2, 3, 3, 3, 3]
  assert [disentangled.bucket(d, 128) for d in (-128, -127, 0, 127, 128)] == [0, 1, 128, 255, 255]


def test_disentangled_equals_the_formula_with_gathered_tables():
  e, tables = example(i=I + 1), params_of("disentangled")["per_head"]
  forth, back = (np.clip(sign * (AWAY + 1) + 2, 0, 3) for sign in (1, -1))
  logits = products(e) + np.einsum("tnh,ntsh->nts", e.q, tables["keys"][:, forth])
  logits += np.einsum("snh,ntsh->nts", per_query_head(e.k), tables["queries"][:, back])
  close("disentangled", e, attended(logits / np.sqrt(3 * H), e))


def test_cope_interpolates_between_codes_at_counted_places():
  e, codes = example("cope", valid=(1, 0, 1, 1, 1)), params_of("cope")["codes"]
  scores, between = products(e) / np.sqrt(H), np.zeros((N, T, T))
  gates = np.where(e.readable, 1 / (1 + np.exp(-scores)), 0.0)
  places = np.cumsum(gates[..., ::-1], axis=-1)[..., ::-1]
  assert (places > 2).any()
  for n, t in np.ndindex(N, T):
    between[n, t] = np.interp(places[n, t], [0, 1, 2], codes @ e.q[t, n])
  close("cope", e, attended(scores + between, e))


def test_cope_counts_half_a_place_for_each_indifferent_key():
  q = np.zeros((T, N, H))
  q[..., 0] = 1.0
  k = example().k * (np.arange(H) > 0)
  codes = np.zeros((3, H))
  codes[:, 0] = [0.0, np.log(4), np.log(4)]
  e = example("cope", q=q, k=k)
  weights = np.array([4, 4, 4, 2]) / 14  # places 2, 1½, 1, ½
  out = run("cope", e, {"codes": codes})
  np.testing.assert_allclose(out[3], np.einsum("s,snv->nv", weights, per_query_head(e.v)[:4]), rtol=1e-12)


def test_token_mixer_is_two_matrices_over_places_with_padding_at_zero():
  assert abs(token_mixer.gelu(1.0) - 0.8411919906082768) < 1e-15
  assert token_mixer.gelu(0.0) == 0.0
  e, p = example("token_mixer", valid=(1, 0, 1, 1, 0)), params_of("token_mixer")
  inner = (np.array([1, 0, 1, 1, 0])[:, None] * e.x).T @ p["kernel1"][:T] + p["bias1"]
  gelu = inner * (1 - 1 / (1 + np.exp(2 * np.sqrt(2 / np.pi) * (inner + 0.044715 * inner**3))))
  expected = (gelu @ p["kernel2"] + p["bias2"]).T[:T] * np.array([1, 1, 0, 1, 1])[:, None]
  close("token_mixer", e, expected)
  np.testing.assert_array_equal(run("token_mixer", example("token_mixer", valid=(0,) * T)), 0.0)


def test_long_convolution_is_convolution_with_a_squashed_filter():
  v = np.random.default_rng(7).normal(size=(T, 1, 1))
  params = {"per_head": {"filter": np.array([[1.0, -0.6, 0.05]]), "backward": np.array([[9.0, 0.3, -0.02]])}}
  causal = example(v=v, q=None, k=None, readable=np.tri(T, dtype=bool)[None])
  expected = np.convolve(v[:, 0, 0], [0.9, -0.5])[:T]
  np.testing.assert_allclose(run("long_convolution", causal, params)[:, 0, 0], expected, rtol=1e-12)
  full = example(v=v, q=None, k=None, readable=np.ones((1, T, T), bool))
  expected = expected + 0.2 * np.append(v[1:, 0, 0], 0.0)
  np.testing.assert_allclose(run("long_convolution", full, params)[:, 0, 0], expected, rtol=1e-12)


def test_long_convolution_is_a_toeplitz_matrix_for_each_head():
  e, tables = example("long_convolution", valid=(1, 1, 0, 1, 1)), params_of("long_convolution")["per_head"]
  taps = {side: np.sign(f) * np.maximum(np.abs(f) - 0.1, 0) for side, f in tables.items()}
  bands = sum(np.multiply.outer(taps["filter"][:, d], d == AWAY) for d in range(3))
  bands = bands + sum(np.multiply.outer(taps["backward"][:, d], -d == AWAY) for d in (1, 2))
  close("long_convolution", e, mixed(bands * e.readable, e))


@pytest.mark.parametrize("valid", [(1, 1, 1, 1, 1), (1, 1, 1, 0, 0), (0, 1, 1, 0, 1), (0, 0, 0, 0, 0)])
def test_fourier_transforms_the_valid_tokens_alone(valid):
  e, visible = example("fourier", valid=valid), np.flatnonzero(valid)
  expected = np.zeros((T, D))
  if len(visible):
    expected[visible] = np.fft.fft2(e.x[visible]).real
  expected[2] = 0.0  # a query that is not valid
  close("fourier", e, expected)


def test_fourier_refuses_any_mask_but_padding():
  with pytest.raises(ValueError, match="no mask but q_valid and kv_valid"):
    run("fourier", example("fourier", readable=example("cope").readable))
