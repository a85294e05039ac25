"""The bias of offsets on a grid, alone and in a vision transformer."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_lab import mesh as meshes
from attention_lab.attention.base import Dims, Unsupported
from attention_lab.attention.mask import FULL
from attention_lab.attention.positions import Positions
from attention_lab.attention.spec import parse
from attention_lab.config import MeshConfig
from attention_lab.models.functional import functional
from attention_lab.models.multi_head_attention import MultiHeadAttention
from attention_lab.models.position_encodings import RelativeBias, offset_count
from attention_lab.models.vision import VisionConfig
from attention_lab.models.vision_transformer import VisionTransformer

KEY = jax.random.key(0)
GRID = (2, 3)
IMAGES = jax.random.uniform(KEY, (4, 4, 6, 1))


def vision(positions, attention="softmax", pooling="cls", mesh=None):
  config = VisionConfig(attention=attention, positions=positions, pooling=pooling, width=16, heads=2, layers=2)
  return functional(lambda key: VisionTransformer(config, (4, 6, 1), 3, key=key, mesh=mesh))


def looked_up(table, extra):
  """The bias of each pair of tokens by hand: a table of offsets, and three numbers for tokens before the grid."""
  heads, (h, w) = len(table), GRID
  offsets = table[:, : (2 * h - 1) * (2 * w - 1)].reshape(heads, 2 * h - 1, 2 * w - 1)
  bias = np.zeros((heads, extra + h * w, extra + h * w), np.float32)
  for n in range(heads):
    for i in range(extra + h * w):
      for j in range(extra + h * w):
        if i < extra:
          bias[n, i, j] = table[n, -1] if j < extra else table[n, -3]
        elif j < extra:
          bias[n, i, j] = table[n, -2]
        else:
          (row, column), (other_row, other_column) = divmod(i - extra, w), divmod(j - extra, w)
          bias[n, i, j] = offsets[n, row - other_row + h - 1, column - other_column + w - 1]
  return bias


@pytest.mark.parametrize("extra, numbers", [(0, 15), (1, 18), (2, 18)])
def test_the_bias_is_a_lookup_of_the_offset(extra, numbers):
  bias = RelativeBias(2, GRID, extra, key=KEY)
  table = np.asarray(bias.per_head["bias"][...])
  assert table.shape == (2, numbers) == (2, offset_count(GRID, extra))
  out = bias(Positions(grid=GRID, extra=extra), 6 + extra)
  np.testing.assert_array_equal(out[0], looked_up(table, extra))


def test_a_layer_adds_the_bias_to_its_logits(filled):
  dims = Dims(model=8, heads=2, kv_heads=1, head=4, value=4, max_len=7)
  bias = RelativeBias(2, GRID, 1, key=KEY)
  plain, layer = (MultiHeadAttention(parse("softmax"), dims, key=KEY, bias=b) for b in (None, bias))
  bias.per_head["bias"][...] = 30.0 * bias.per_head["bias"][...]
  x, where = jax.random.normal(KEY, (1, 7, 8)), Positions(grid=GRID, extra=1)
  q, k, v = (np.asarray(project(x))[0] for project in (layer.query, layer.key, layer.value))
  logits = np.einsum("inh,jh->nij", q, k[:, 0]) / 2 + looked_up(np.asarray(bias.per_head["bias"][...]), 1)
  weights = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
  expected = layer.out(jnp.asarray(np.einsum("nij,jv->inv", weights, v[:, 0]))[None])
  out = layer(x, mask=FULL, positions=where).out
  np.testing.assert_allclose(out, expected, atol=1e-5)
  assert not np.allclose(out, plain(x, mask=FULL, positions=where).out, atol=1e-3)


def test_the_gradient_reaches_the_numbers_of_offsets_that_occur_and_no_other(filled):
  model = vision("bias2d", pooling="cls")
  params = filled(model)
  slopes = jax.jit(jax.grad(lambda p: jnp.sum(model.apply(p, IMAGES[:1]).logits ** 2)))(params)
  read = {}
  for layer in ("0", "1"):
    slope = np.asarray(slopes["encoder"]["layers"][layer]["attention"]["bias2d"]["per_head"]["bias"])
    read[layer] = [np.flatnonzero(np.abs(row) > 1e-9).tolist() for row in slope]
  assert read["0"] == [list(range(18))] * 2
  assert read["1"] == [[15, 17]] * 2  # the class token alone is read out, and it reads the grid and itself


@pytest.mark.parametrize("positions", ["none", "rope2d", "bias2d", "bias2d+rope2d(fraction=0.5)"])
def test_a_reader_of_images_tells_patches_apart_only_through_positions(filled, positions):
  model = vision(positions)
  params = filled(model)
  apply = jax.jit(model.apply)
  there, moved = (apply(params, images).logits for images in (IMAGES, jnp.roll(IMAGES, 2, axis=2)))
  assert np.allclose(there, moved, atol=1e-5) == (positions == "none")


def test_a_model_with_the_bias_split_over_eight_devices_gives_the_same_logits(filled):
  mesh = meshes.make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
  model, split = vision("bias2d"), vision("bias2d", mesh=mesh)
  params = filled(model)
  placed = jax.device_put((params, IMAGES), (meshes.shardings(params, mesh), meshes.batch_sharding(mesh)))
  logits, expected = jax.jit(split.apply)(*placed).logits, jax.jit(model.apply)(params, IMAGES).logits
  chex.assert_trees_all_close(logits, expected, atol=1e-5)


def test_another_grid_than_it_was_built_for_is_refused():
  bias = RelativeBias(2, GRID, 1, key=KEY)
  with pytest.raises(ValueError, match=r"built for a grid of \(2, 3\) and 1 tokens before it, not \(3, 2\) and 1"):
    bias(Positions(grid=(3, 2), extra=1), 7)
  with pytest.raises(Unsupported, match="bias2d needs tokens on a grid"):
    bias(Positions(), 7)


def test_decoding_is_refused_by_name():
  dims = Dims(model=8, heads=2, kv_heads=2, head=4, value=4, max_len=6)
  layer = MultiHeadAttention(parse("softmax"), dims, key=KEY, bias=RelativeBias(2, GRID, 0, key=KEY))
  with pytest.raises(Unsupported, match="bias2d needs a grid, which decoding does not have; give rope or learned"):
    layer.extend(jnp.zeros((1, 1, 8)), layer.variant.init_state(1, dims, jnp.float32), jnp.zeros((1, 1), int), None)
