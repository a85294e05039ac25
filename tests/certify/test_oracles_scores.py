"""The oracles of section "scores": claims of all, and each by hand, by matrices or by other formulas.

Those with positions inside, latents or without attention are in test_oracles_controls.py.
"""

import importlib

import numpy as np
import pytest
from scored_examples import (
  CAUSAL,
  OWN_HEADS,
  VARIANTS,
  WITHOUT_BIAS,
  D,
  H,
  K,
  N,
  T,
  attended,
  close,
  example,
  mixed,
  params_of,
  per_query_head,
  products,
  run,
)

from attention_lab.certify import oracle_shared
from attention_lab.certify.cases import quantized, stick_breaking


@pytest.mark.parametrize("name", VARIANTS)
def test_a_case_names_its_variant_and_its_paper(name):
  module = importlib.import_module(f"attention_lab.certify.cases.{name}")
  assert {spec.partition("(")[0] for spec in module.SPECS} == {name}
  assert "arXiv" in module.__doc__


@pytest.mark.parametrize("name", VARIANTS)
def test_a_query_that_may_read_nothing_returns_zeros(name):
  out = run(name, example(name))
  np.testing.assert_array_equal(out[2], 0.0)
  others = [3, 4] if name == "stick_breaking" else [0, 1, 3, 4]
  assert (np.abs(out[others]).reshape(len(others), -1).max(axis=1) > 0).all()


@pytest.mark.parametrize("name", VARIANTS)
def test_hidden_keys_change_nothing_for_other_queries(name):
  e = example(name, valid=(1, 1, 1, 0, 1), bias=None)
  changed = {letter: getattr(e, letter).copy() for letter in "qkvx"}
  for array in changed.values():
    array[3] = 30.0
  moved = example(name, valid=(1, 1, 1, 0, 1), **changed, y=changed["x"])
  others = [0, 1, 2, 4]
  np.testing.assert_array_equal(run(name, e)[others], run(name, moved)[others])


@pytest.mark.parametrize("name", [name for name in VARIANTS if name not in OWN_HEADS])
def test_grouped_heads_equal_key_value_heads_repeated_in_blocks(name):
  e, params = example(name), params_of(name)
  repeated = example(name, k=per_query_head(e.k), v=per_query_head(e.v))
  wide = {leaf: np.repeat(value, 2, axis=-1) for leaf, value in params.items() if leaf in ("kernel", "bias")}
  np.testing.assert_allclose(run(name, e, params), run(name, repeated, params | wide), atol=1e-13)


@pytest.mark.parametrize("name", VARIANTS)
def test_some_queries_by_themselves_give_their_rows_of_the_whole(name):
  e, rows = example(name, valid=(1, 0, 1, 1, 1), i=np.arange(T) + 2, j=np.arange(T) + 2), [3, 2, 4]
  fields = {"q": e.q[rows], "x": e.x[rows], "y": e.y, "i": e.i[rows], "j": e.j, "readable": e.readable[:, rows]}
  np.testing.assert_allclose(run(name, example(name, **fields)), run(name, e)[rows], atol=1e-13)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_bias_is_added_to_the_logits_or_refused(name):
  bias = np.random.default_rng(3).normal(size=(N, T, T))
  if name in WITHOUT_BIAS:
    with pytest.raises(ValueError, match="drop the bias"):
      run(name, example(name, bias=bias))
    return
  assert np.abs(run(name, example(name, bias=bias)) - run(name, example(name))).max() > 1e-2
  if name not in ("fox", "cope"):  # in these a key that nobody reads still counts
    shut = np.where(np.arange(T) == 1, -1e9, np.zeros((N, T, T)))
    hidden = run(name, example(name, valid=(1, 0, 1, 1, 1)))
    np.testing.assert_allclose(run(name, example(name, bias=shut))[[0, 3, 4]], hidden[[0, 3, 4]], atol=1e-12)


@pytest.mark.parametrize("name", CAUSAL)
def test_causal_oracles_refuse_the_future(name):
  with pytest.raises(ValueError, match="give causal=True"):
    run(name, example("variational"))


def test_the_key_index_is_found_by_position_only_where_it_is_one():
  e = example(j=np.array([4, 0, -1, 4, 2]))
  assert [oracle_shared.key_index(e, t) for t in range(T)] == [0, 1, 2, 3, 4]
  part = example(i=np.array([0, 2, 4, 1]), j=e.j, readable=e.readable[:, :4], q=e.q[:4], x=e.x[:4])
  assert [oracle_shared.key_index(part, t) for t in (0, 1)] == [1, 4]
  for t, count in ((2, 2), (3, 0)):
    with pytest.raises(ValueError, match=f"{count} keys"):
      oracle_shared.key_index(part, t)


def test_softmax_with_a_sink_is_softmax_with_one_more_logit_whose_value_is_zero():
  e, tables = example(bias=np.random.default_rng(3).normal(size=(N, T, T))), params_of("softmax")["per_head"]
  scaled = np.exp(tables["temperature"])[:, None, None] * products(e) / 2
  logits = np.concatenate(
    [2 * np.tanh(scaled / 2) + e.bias, np.broadcast_to(tables["sink"][:, None, None], (N, T, 1))], -1
  )
  weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  everywhere = example(asked=(1,) * T, bias=e.bias)
  close("softmax", everywhere, mixed(weights[..., :T], e))


def test_forgetting_is_a_difference_of_cumulative_sums_over_valid_tokens():
  e, p = example("fox", valid=(1, 0, 1, 1, 1)), params_of("fox")
  gates = np.array([1, 0, 1, 1, 1])[:, None] * np.log(1 / (1 + np.exp(-(e.x @ p["kernel"] + p["bias"]))))
  total = np.repeat(np.cumsum(gates, axis=0), N // K, axis=1).T
  close("fox", e, attended(products(e) / 2 + total[:, :, None] - total[:, None], e))


def test_forgetting_by_half_a_token_skips_the_hidden_one():
  params = {"kernel": np.zeros((D, K)), "bias": np.zeros(K)}
  e = example("fox", valid=(1, 1, 0, 1, 1), q=np.zeros((T, N, H)))
  weights = np.array([1, 2, 0, 4, 8]) / 15
  np.testing.assert_allclose(run("fox", e, params)[4], np.einsum("s,snv->nv", weights, per_query_head(e.v)))


def test_stick_breaking_halves_the_stick_from_the_last_key_on():
  np.testing.assert_allclose(stick_breaking.weights([0.0, 0.0, 0.0]), [1 / 8, 1 / 4, 1 / 2], rtol=1e-14)
  e = example("stick_breaking", asked=(1,) * T, q=np.zeros((T, N, H)))
  before = run("stick_breaking", e)
  np.testing.assert_array_equal(before[0], 0.0)
  np.testing.assert_allclose(before[2], per_query_head(e.v)[0] / 4 + per_query_head(e.v)[1] / 2)
  np.testing.assert_allclose(run("stick_breaking", e, attend_current=True)[1:, 0], (before[1:, 0] + e.v[1:, 0]) / 2)


@pytest.mark.parametrize("reads_own", [False, True])
def test_stick_breaking_multiplies_what_all_later_keys_leave(reads_own):
  e = example("stick_breaking", valid=(1, 0, 1, 1, 1))
  read = e.readable & (reads_own | ~np.eye(T, dtype=bool))
  taken = np.where(read, 1 / (1 + np.exp(-products(e) / 2)), 0.0)
  left = np.cumprod(1 - taken[..., ::-1], axis=-1)[..., ::-1]
  close(
    "stick_breaking",
    e,
    mixed(taken * np.append(left[..., 1:], np.ones((N, T, 1)), axis=-1), e),
    attend_current=reads_own,
  )


def test_adaptive_span_fades_over_the_ramp():
  spans = {"per_head": {"span": np.array([0.5, -1.0, 7.0, 0.125])}}
  masks = np.array([[1, 1, 1, 0.5, 0], [1, 0.5, 0, 0, 0], [1, 1, 1, 1, 1], [1, 0.75, 0.25, 0, 0]])
  distance = np.abs(np.arange(T)[:, None] - np.arange(T))
  with np.errstate(divide="ignore"):
    close("adaptive_span", example(), attended(products(example()) / 2 + np.log(masks[:, distance]), example()), spans)
  far = run("adaptive_span", example(i=np.arange(T) + 10), spans)
  np.testing.assert_array_equal(far, 0.0)


def test_variational_without_a_key_is_softmax():
  e = example()
  close("variational", e, attended(products(e) / 2, e))
  close("variational", e, attended(products(e) * 0.3, e), scale=0.3)


def test_quantized_blocks_round_to_their_own_step_halves_to_even():
  np.testing.assert_allclose(quantized.quantize(np.array([3.0, 1.4, -0.5]), 3, 2), [3.0, 1.0, -0.5], rtol=1e-14)
  np.testing.assert_array_equal(quantized.quantize(np.array([3.0, 2.5, 0.5, 1.5, -2.5]), 3, 9), [3, 2, 0, 2, -2])
  np.testing.assert_array_equal(quantized.quantize(np.array([0.0, 0.0, -8.0]), 2, 2), [0, 0, -8])


def test_quantized_reads_rounded_rows_and_nears_softmax_with_its_bits():
  e, (field, sizes) = example(), quantized.GROWS
  exact = attended(products(e) / 2, e)
  q, k = (np.apply_along_axis(quantized.quantize, -1, array, 4, 3) for array in (e.q, e.k))
  close("quantized", e, attended(products(e, q, k) / 2, e))
  errors = [np.abs(run("quantized", e, **{field: size}) - exact).mean() for size in sizes]
  assert errors[1] < 0.1 * errors[0]


def test_the_surrogate_of_quantized_moves_as_if_nothing_were_rounded():
  base, rng = example(), np.random.default_rng(4)
  q, k = (0.1 * rng.normal(size=array.shape) for array in (base.q, base.k))
  rounded = [np.apply_along_axis(quantized.quantize, -1, array, 4, 3) for array in (base.q, base.k)]
  out = quantized.surrogate(VARIANTS["quantized"], {}, example(q=base.q + q, k=base.k + k), base)
  np.testing.assert_allclose(out, attended(products(base, rounded[0] + q, rounded[1] + k) / 2, base), atol=1e-12)
