"""Torch layers made ready for a comparison; imported after `importorskip`."""

import torch
from exchange import Heads, projected


def ready(layer, *outputs, seed=0):
  """In evaluation mode, every parameter drawn anew, the named output projections left out."""
  torch.manual_seed(seed)
  for parameter in layer.parameters():
    torch.nn.init.normal_(parameter, std=0.4)
  for name in outputs:
    setattr(layer, name, torch.nn.Identity())
  return layer.eval()


def split(x, *layers, count):
  """Queries, keys and values of torch's linear layers, each of `count` heads."""
  biases = (None if layer.bias is None else layer.bias.detach() for layer in layers)
  return Heads(*(projected(x, layer.weight.detach(), bias, count) for layer, bias in zip(layers, biases, strict=True)))


def tensors(qkv):
  """Torch's order of axes: batch, heads, length, width."""
  return [torch.from_numpy(array).transpose(1, 2) for array in qkv]


def triangle(length):
  """Zero where a key may be read, −inf at later keys."""
  return torch.triu(torch.full((length, length), -torch.inf), 1)[None, None]


def flat(out):
  """Heads side by side."""
  return out.reshape(*out.shape[:2], -1)
