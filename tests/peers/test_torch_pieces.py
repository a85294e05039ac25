"""Variants that are a few of torch's own operations one after the other."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra peers")

from agreement import agree
from exchange import Heads, heads, mask, normal, run
from layers import tensors
from torch.nn.functional import avg_pool1d, conv1d, scaled_dot_product_attention, softshrink

SDPA = "torch.nn.functional.scaled_dot_product_attention"


def array(tensor):
  return tensor.detach().transpose(1, 2).numpy()


def test_induced_set_equals_attention_to_and_from_latents():
  qkv, latents = heads(1, V=5), normal(2, 4, 3, 8)
  q, k, v = tensors(qkv)
  middle = torch.from_numpy(latents)[None].expand(2, -1, -1, -1)
  theirs = scaled_dot_product_attention(q, middle, scaled_dot_product_attention(middle, k, v))
  agree(
    "induced_set", SDPA, run("induced_set(latents=3)", qkv, params={"per_head": {"latents": latents}}), array(theirs)
  )


def test_pooled_equals_attention_to_averages():
  qkv = heads(3, V=5)
  q, k, v = tensors(qkv)
  k, v = (avg_pool1d(states.flatten(0, 1).mT, 3).mT.unflatten(0, (2, 4)) for states in (k, v))
  agree(
    "memory_compressed", SDPA, run("memory_compressed(stride=3)", qkv), array(scaled_dot_product_attention(q, k, v))
  )


def test_shared_equals_attention_of_queries_to_themselves():
  qkv = heads(4)
  q, _, v = tensors(qkv)
  agree("shared_qk", SDPA, run("shared_qk", qkv), array(scaled_dot_product_attention(q, q, v)))


def test_quantized_equals_attention_of_fake_quantized_rows():
  qkv = heads(5)

  def rounded(states):
    rows = torch.from_numpy(states).reshape(-1, 4)
    step = rows.abs().amax(dim=1) / 127
    zero = torch.zeros(len(rows), dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(rows, step, zero, 0, -127, 127).reshape(states.shape).numpy()

  pair = Heads(rounded(qkv.q), rounded(qkv.k), qkv.v)
  ours = run("quantized(bits=8, block=4)", qkv)
  agree("quantized", SDPA, ours, array(scaled_dot_product_attention(*tensors(pair))))


@pytest.mark.parametrize("causal", [False, True])
def test_long_convolution_equals_a_convolution_with_a_shrunk_filter(causal):
  qkv, past, future = heads(6, T=20), normal(7, 4, 20, scale=0.2), normal(8, 4, 20, scale=0.2)
  future *= not causal
  kernel = np.concatenate([past[:, ::-1], future[:, 1:]], axis=1)[:, None]
  kernel = softshrink(torch.from_numpy(kernel), 0.1)
  values = torch.from_numpy(qkv.v).permute(0, 3, 2, 1).flatten(0, 1)
  theirs = conv1d(values, kernel, padding=19, groups=4).unflatten(0, (2, 8)).permute(0, 3, 2, 1)
  params = {"per_head": {"filter": past, "backward": future}}
  ours = run("long_convolution(squash=0.1)", qkv, params=params, mask=mask(causal=causal))
  agree("long_convolution", "torch.nn.functional.conv1d", ours, theirs)
