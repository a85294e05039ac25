"""Peers that are PyTorch functions: `scaled_dot_product_attention`, and `flex_attention` under `torch.compile`.

Layout B N T H, made beforehand. What torch allocates cannot be read from a program, so that these rows have no memory.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from attention_lab.benchmark import machine
from attention_lab.benchmark.program import TOKENS, Arrays, Case, Program, attention_flops, refuse
from attention_lab.timing import Sample

Tensors = dict[str, Any]


def compile_torch(name: str, case: Case) -> Program:
  """`torch_sdpa` or `torch_flex` at `case`; raises Unsupported for what they do not do here."""
  import torch

  torch.set_num_threads(machine.cores())
  device = "cuda" if jax.default_backend() == "gpu" else "cpu"
  if name == "torch_sdpa" and case.window:
    raise refuse(name, "has no window but as a dense mask: take torch_flex, or leave --window out")
  if name == "torch_flex" and case.mode == "decode":
    raise refuse(name, "is not measured in decoding: its mask is compiled for one length; leave --mode=decode out")
  if name == "torch_flex" and case.mode == "train" and device == "cpu":
    raise refuse(name, "has no backward pass on a CPU: leave --mode=train out")
  begun = time.perf_counter()
  attend = _sdpa(case) if name == "torch_sdpa" else _flex(case, device)
  make = {"forward": _forward, "train": _train, "decode": _decode}[case.mode]
  flops = attention_flops(case)
  program = Program(lambda arrays: make(attend, _tensors(arrays, case, device)), flops=flops, flops_from="formula")
  if name == "torch_flex":
    shapes = {letter: np.zeros(shape.shape, np.float32) for letter, shape in case.shapes().items()}
    make(attend, _tensors(shapes, case, device)).run()
    program.compile_seconds = time.perf_counter() - begun
  return program


def _sdpa(case: Case) -> Callable:
  from torch.nn.functional import scaled_dot_product_attention

  grouped = case.kv_heads < case.heads
  causal = case.causal and case.mode != "decode"
  return lambda q, k, v: scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=grouped)


def _flex(case: Case, device: str) -> Callable:
  import torch
  from torch.nn.attention.flex_attention import create_block_mask, flex_attention

  T, W = case.length, case.window or case.length

  def readable(_b: Any, _h: Any, i: Any, j: Any) -> Any:
    return (i - j < W) & ((i >= j) if case.causal else (j - i < W))

  mask = create_block_mask(readable, None, None, T, T, device) if case.causal or case.window else None
  torch.compiler.reset()  # after eight shapes it would go on without compiling
  compiled = torch.compile(flex_attention, dynamic=False)
  return lambda q, k, v: compiled(q, k, v, block_mask=mask, enable_gqa=case.kv_heads < case.heads)


def _tensors(arrays: Arrays, case: Case, device: str) -> Tensors:
  """q, k and v as contiguous tensors B N T H."""
  import torch

  dtype = getattr(torch, case.dtype)
  heads = {letter: np.swapaxes(np.asarray(arrays[letter], np.float32), 1, 2) for letter in "qkv"}
  return {letter: torch.from_numpy(np.array(a, order="C")).to(device, dtype) for letter, a in heads.items()}


def _forward(attend: Callable, inputs: Tensors) -> Sample:
  import torch

  def run() -> Any:
    with torch.inference_mode():
      out = attend(**inputs)
    _synchronise(inputs)
    return out

  return Sample(run)


def _train(attend: Callable, inputs: Tensors) -> Sample:
  import torch

  cotangent = torch.randn_like(inputs["q"])
  for tensor in inputs.values():
    tensor.requires_grad_()

  def run() -> None:
    for tensor in inputs.values():
      tensor.grad = None
    attend(**inputs).backward(cotangent)
    _synchronise(inputs)

  return Sample(run)


def _decode(attend: Callable, inputs: Tensors) -> Sample:
  """A cache that is written in place and read up to the new token."""
  import torch

  T = inputs["k"].shape[2]
  cache = {letter: torch.nn.functional.pad(inputs[letter], (0, 0, 0, TOKENS)) for letter in "kv"}
  first_token = {letter: tensor[:, :, :1].contiguous() for letter, tensor in inputs.items()}

  def run() -> Any:
    with torch.inference_mode():
      for end in range(T, T + TOKENS):
        for letter in "kv":
          cache[letter][:, :, end : end + 1] = first_token[letter]
        out = attend(first_token["q"], cache["k"][:, :, : end + 1], cache["v"][:, :, : end + 1])
        _synchronise(inputs)
    return out

  return Sample(run, TOKENS)


def _synchronise(inputs: Tensors) -> None:
  import torch

  if inputs["q"].is_cuda:
    torch.cuda.synchronize()
