"""Patterns on a grid: where the grid comes from, what class tokens read, and grids of three axes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_lab.attention import Call, Dims, Mask, Positions, Unsupported, attention_maps, spec

GRID, N, H, V = (3, 4), 2, 3, 2
T = GRID[0] * GRID[1]
MAPS = ("axial", "neighbourhood(window=3)", "swin(window=2, shift=1)")
EVERY = (*MAPS, "region(size=2)")
VIDEO = (3, 2, 2)
SPANS = ("neighbourhood(window=3)", "neighbourhood(window=5)", "swin(window=3)")


def inputs(length, seed=0):
  rng = np.random.default_rng(seed)
  return [rng.normal(size=(1, length, N, width)).astype(np.float32) for width in (H, H, V)]


def attended(variant, arrays, **demands):
  return np.asarray(jax.jit(lambda q, k, v: variant({}, q, k, v, **demands))(*arrays))


def columns(text, count):
  """The same spec with the grid in its fields."""
  name, _, arguments = text.partition("(")
  return spec.parse(f"{name}({', '.join(filter(None, (arguments.rstrip(')'), f'columns={count}')))})")


def reads(text, positions, length):
  """`T S`: which weights of the map are not 0 in some head."""
  variant = spec.parse(text)
  maps = jax.jit(lambda q, k, v: attention_maps.weights(variant, {}, q, k, v, Call(positions=positions)))(
    *inputs(length)
  )
  return np.any(np.abs(maps) > 1e-9, axis=(0, 1))


@pytest.mark.parametrize("text", EVERY)
def test_the_grid_of_the_positions_equals_columns_given(text):
  mask = Mask(kv_valid=jnp.asarray(np.arange(T)[None] != 5))
  expected = attended(columns(text, GRID[1]), inputs(T), mask=mask)
  read = attended(spec.parse(text), inputs(T), mask=mask, positions=Positions(grid=GRID))
  np.testing.assert_allclose(read, expected, atol=1e-6)


@pytest.mark.parametrize("text", MAPS)
def test_class_tokens_read_all_and_are_read_by_all(text):
  extra = 2
  seen = reads(text, Positions(grid=GRID, extra=extra), T + extra)
  assert seen[:extra].all()
  assert seen[:, :extra].all()
  np.testing.assert_array_equal(seen[extra:, extra:], reads(text, Positions(grid=GRID), T))
  assert not seen.all()


def softmax_of(q, keys, values):
  """`N V`: one query's softmax attention, in NumPy."""
  weights = np.exp(np.einsum("nh,snh->ns", q, keys) / np.sqrt(H))
  return np.einsum("ns,snv->nv", weights / weights.sum(axis=1, keepdims=True), values)


def test_class_tokens_belong_to_no_region():
  extra, arrays = 1, inputs(T + 1)
  out = attended(spec.parse("region(size=2)"), arrays, positions=Positions(grid=GRID, extra=extra))[0]
  q, k, v = (array[0] for array in arrays)
  np.testing.assert_allclose(out[0], softmax_of(q[0], k, v), atol=1e-5)
  region = np.array([(row // 2) * 2 + column // 2 for row, column in itertools.product(*map(range, GRID))])
  for p in range(T):
    cells = [np.flatnonzero(region == other) + extra for other in range(4)]
    keys, values = (
      np.concatenate([a[:1], *(a[c] if p + extra in c else a[c].mean(axis=0, keepdims=True) for c in cells)])
      for a in (k, v)
    )
    np.testing.assert_allclose(out[p + extra], softmax_of(q[p + extra], keys, values), atol=1e-5)


@pytest.mark.parametrize("text", (*EVERY, "divided_space_time"))
def test_without_a_grid_it_is_refused_by_name(text):
  name = type(spec.parse(text)).__name__
  with pytest.raises(Unsupported, match=f"{name} needs a grid: set its field '\\w+', or pass positions with grid="):
    attended(spec.parse(text), inputs(T))


def test_space_and_time_want_a_grid_of_three_axes():
  with pytest.raises(Unsupported, match=r"DividedSpaceTime needs a grid: .*grid=\(frames, rows, columns\)"):
    attended(spec.parse("divided_space_time"), inputs(T), positions=Positions(grid=GRID))


def test_space_and_time_take_the_size_of_a_frame_from_the_positions():
  read = attended(spec.parse("divided_space_time"), inputs(T), positions=Positions(grid=VIDEO))
  np.testing.assert_allclose(read, attended(spec.parse("divided_space_time(tokens=4)"), inputs(T)), atol=1e-6)


NEAR = {
  "axial": lambda a, b: sum(x != y for x, y in zip(a, b, strict=True)) <= 1,
  "neighbourhood(window=3)": lambda a, b: all(abs(x - y) <= 1 for x, y in zip(a, b, strict=True)),
  "swin(window=2, shift=1)": lambda a, b: all((x + 1) // 2 == (y + 1) // 2 for x, y in zip(a, b, strict=True)),
  "divided_space_time": lambda a, b: a[0] == b[0] or a[1:] == b[1:],
}


@pytest.mark.parametrize("text", NEAR)
def test_patterns_hold_on_grids_of_three_axes(text):
  extra, places = 1, list(itertools.product(*map(range, VIDEO)))
  expected = np.ones((len(places) + extra,) * 2, bool)
  expected[extra:, extra:] = [[NEAR[text](a, b) for b in places] for a in places]
  np.testing.assert_array_equal(reads(text, Positions(grid=VIDEO, extra=extra), len(expected)), expected)


@pytest.mark.parametrize("text", MAPS[1:])
def test_blocks_beyond_the_span_are_skipped_without_a_trace(text):
  length, variant = 400, columns(text, 7)
  assert variant.span() < 30
  assert variant.claims().state_exponent == 0
  keep = np.asarray(variant.pattern({}, jnp.arange(length)[:, None], jnp.arange(length)[None]))
  dense = attended(spec.parse("softmax"), inputs(length), mask=Mask(explicit=jnp.asarray(keep[None, None])))
  np.testing.assert_allclose(attended(variant, inputs(length)), dense, atol=1e-6)


def test_a_span_covers_its_pattern_and_no_more():
  places = jnp.arange(60)
  for text, count in itertools.product(SPANS, (1, 2, 5)):
    variant = columns(text, count)
    i, j = np.nonzero(np.asarray(variant.pattern({}, places[:, None], places[None])))
    assert np.max(np.abs(i - j)) == variant.span() - 1, (text, count)


def test_the_ring_of_an_image_is_not_its_length():
  dims = Dims(4, N, N, H, V, 4096)
  state = jax.eval_shape(lambda: columns("swin(window=2)", 4).init_state(1, dims, jnp.float32))
  assert state["k"].shape[2] == 6
  assert spec.parse("swin(window=2)").capacity(dims) == 4096
