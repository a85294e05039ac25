"""Sparse patterns against modules of Hugging Face transformers with random weights."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra peers")
transformers = pytest.importorskip("transformers", reason="needs the extra peers")

from agreement import agree
from exchange import Heads, heads, mask, normal, run
from layers import flat, ready, split, tensors
from torch.nn.functional import scaled_dot_product_attention
from transformers import masking_utils
from transformers.models.big_bird import modeling_big_bird
from transformers.models.longformer import modeling_longformer
from transformers.models.longt5 import modeling_longt5
from transformers.models.reformer import modeling_reformer
from transformers.models.swin import modeling_swin

D, N, T = 32, 4, 24


def longformer(side):
  """A layer that reads `side` tokens on either side; global tokens share its projections."""
  config = transformers.LongformerConfig(hidden_size=D, num_attention_heads=N, attention_window=[2 * side])
  layer = ready(modeling_longformer.LongformerSelfAttention(config, 0))
  for name in ("query", "key", "value"):
    getattr(layer, f"{name}_global").load_state_dict(getattr(layer, name).state_dict())
  return layer


def read(layer, x, kinds):
  """What `layer` gives; kinds `B T`: below 0 padding, above 0 global."""
  kinds, is_global = torch.from_numpy(kinds), bool((kinds > 0).any())
  return layer(torch.from_numpy(x), 1e4 * kinds, kinds < 0, kinds > 0, is_global)[0].detach().numpy()


def test_local_equals_longformer_with_padding():
  layer, x = longformer(4), normal(1, 2, T, D)
  valid = np.arange(T)[None] < np.array([[T], [17]])
  qkv = split(x, layer.query, layer.key, layer.value, count=N)
  ours = run("local(window=5)", qkv, mask=mask(kv_valid=valid, q_valid=valid))
  agree("local", "transformers.LongformerSelfAttention", flat(ours), read(layer, x, valid.astype(np.float32) - 1))


def test_longformer_equals_longformer_with_global_tokens():
  layer, x, kinds = longformer(4), normal(2, 2, T, D), np.zeros((2, T), np.float32)
  kinds[:, :2] = 1
  ours = run("longformer(window=5, global_tokens=2)", split(x, layer.query, layer.key, layer.value, count=N))
  agree("longformer", "transformers.LongformerSelfAttention", flat(ours), read(layer, x, kinds))


def test_dilated_equals_longformer_on_every_second_token():
  layer, x, theirs = longformer(3), normal(3, 2, T, D), np.zeros((2, T, D), np.float32)
  for first in (0, 1):
    theirs[:, first::2] = read(layer, x[:, first::2].copy(), np.zeros((2, T // 2), np.float32))
  ours = run("dilated(window=4, dilation=2)", split(x, layer.query, layer.key, layer.value, count=N))
  agree("dilated", "transformers.LongformerSelfAttention", flat(ours), theirs)


@pytest.mark.parametrize("name", ["local(window=5)", "block_local(block=5)"])
def test_causal_windows_equal_the_masks_of_transformers(name):
  qkv, i = heads(4, T=T), torch.arange(T)
  rules = {
    "local": masking_utils.sliding_window_causal_mask_function(5),
    "block_local": masking_utils.chunked_causal_mask_function(5, torch.zeros(1, dtype=torch.int64)),
  }
  variant = name.partition("(")[0]
  readable = rules[variant](torch.tensor(0), torch.tensor(0), i[:, None], i[None])
  theirs = scaled_dot_product_attention(*tensors(qkv), attn_mask=readable).transpose(1, 2)
  agree(variant, "transformers.masking_utils", run(name, qkv, mask=mask(causal=True)), theirs)


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_swin_equals_swin_with_shift_and_bias(shift):
  rows, columns, window = 8, 12, 4
  config = transformers.SwinConfig(window_size=window, attn_implementation="eager", hidden_dropout_prob=0.0)
  layer = ready(modeling_swin.SwinLayer(config, D, (rows, columns), N, shift_size=shift), "layernorm_before")
  layer.layernorm_after, layer.mlp = torch.nn.Identity(), torch.nn.Threshold(torch.inf, 0.0)
  layer.attention.o_proj = torch.nn.Identity()
  x = normal(5, 2, rows * columns, D)
  theirs = layer(torch.from_numpy(x), (rows, columns))[0].detach().numpy() - x
  row, column = np.divmod(np.arange(rows * columns), columns)
  apart = [np.clip(at[:, None] - at[None], 1 - window, window - 1) + window - 1 for at in (row, column)]
  table = layer.attention.relative_position_bias.relative_position_bias_table.detach().numpy()
  bias = np.moveaxis(table[apart[0] * (2 * window - 1) + apart[1]], -1, 0)[None]
  attention = layer.attention
  qkv = split(x, attention.q_proj, attention.k_proj, attention.v_proj, count=N)
  ours = run(f"swin(window={window}, shift={shift}, columns={columns})", qkv, bias=bias)
  agree("swin", "transformers.SwinLayer", flat(ours), theirs)


def test_bigbird_equals_bigbird_with_its_random_blocks():
  block, count = 4, 12
  config = transformers.BigBirdConfig(
    hidden_size=16, num_attention_heads=2, block_size=block, num_random_blocks=2, max_position_embeddings=block * count
  )
  layer = ready(modeling_big_bird.BigBirdBlockSparseAttention(config, seed=7)).train()
  draw, drawn = layer._bigbird_block_rand_mask_with_head, []
  layer._bigbird_block_rand_mask_with_head = lambda **sizes: drawn.append(draw(**sizes)) or drawn[-1]
  x = normal(6, 2, block * count, 16)
  blocked, band, rows, columns = modeling_big_bird.BigBirdModel.create_masks_for_block_sparse_attn(
    torch.ones(2, block * count), block
  )
  theirs = layer(torch.from_numpy(x), band, rows, columns, blocked, blocked)[0].detach().numpy()
  qkv, ours = split(x, layer.query, layer.key, layer.value, count=2), []
  for n in range(2):
    blocks = np.full((count, count), count - 1)
    blocks[-1] = np.arange(count)
    blocks[1:-1, :2] = drawn[0][n]
    head = Heads(*(array[:, :, n : n + 1] for array in qkv))
    ours.append(run(f"bigbird(block={block}, random={count})", head, params={"fixed": {"blocks": blocks}}))
  agree("bigbird", "transformers.BigBirdBlockSparseAttention", flat(np.concatenate(ours, axis=2)), theirs)


def test_transient_global_equals_longt5_with_means_for_summaries():
  config = transformers.LongT5Config(d_model=D, d_kv=8, num_heads=N, local_radius=3, global_block_size=4)
  layer = ready(modeling_longt5.LongT5TransientGlobalAttention(config, has_relative_attention_bias=True), "o")
  for table in (layer.relative_attention_bias, layer.global_relative_attention_bias):
    table.weight.data.zero_()
  layer.global_input_layer_norm = torch.nn.Linear(D, D, bias=False)
  layer.global_input_layer_norm.weight.data = torch.eye(D) / 4
  x = normal(7, 2, T, D, scale=0.5)
  theirs = layer(torch.from_numpy(x), mask=torch.ones(2, T))[0].detach()
  ours = run("long_t5_tglobal(window=4, block=4, scale=1.0)", split(x, layer.q, layer.k, layer.v, count=N))
  agree("long_t5_tglobal", "transformers.LongT5TransientGlobalAttention", flat(ours), theirs)


def test_lsh_equals_reformer_within_each_bucket_of_its_hash():
  config = transformers.ReformerConfig(
    hidden_size=D,
    num_attention_heads=N,
    attention_head_size=8,
    num_buckets=4,
    num_hashes=1,
    hash_seed=3,
    is_decoder=False,
  )
  layer, x = ready(modeling_reformer.LSHSelfAttention(config)), normal(8, 1, T, D)
  qkv = split(x, layer.query_key, layer.query_key, layer.value, count=N)
  buckets = layer._hash_vectors(tensors(qkv)[0], 1, None)[0].numpy()
  torch.manual_seed(3)
  rotations = torch.randn(N, 8, 1, 2).numpy()
  for n in range(N):
    theirs = np.zeros((1, T, D), np.float32)
    for bucket in np.unique(buckets[n]):
      members = buckets[n] == bucket
      theirs[:, members] = layer(torch.from_numpy(x[:, members])).hidden_states.detach().numpy()
    head = Heads(*(array[:, :, n : n + 1] for array in qkv))
    params = {"fixed": {"rotations": rotations[n].transpose(1, 0, 2)}}
    ours = run("lsh(hashes=1, buckets=4, scale=1.0)", head, params=params)
    agree("lsh", "transformers.LSHSelfAttention", ours[:, :, 0], theirs[:, :, 8 * n : 8 * n + 8])
