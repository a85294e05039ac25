"""The peers: GPT-2 and ViT of `transformers` in a plain PyTorch loop, as eager code and under `torch.compile`.

They get our initial values, so that their first loss, or their tokens, can be held against ours. GPT-2 does not scale
its embeddings and ours are times √D: its residual stream is 1/√D of ours, which its norms undo.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import transformers
from torch.nn.functional import cross_entropy

from attention_lab.benchmark import machine
from attention_lab.benchmark.models.workload import LEARNING_RATE, WEIGHT_DECAY, ModelProgram, Workload, images, tokens

EPSILON = 1e-6  # the epsilon of our norms
ACTIVATION = "gelu_pytorch_tanh"  # GPT-2's own gelu_new is the same function in seven operations
MAPS = {"attn.c_attn": "qkv", "attn.c_proj": "attention/out", "mlp.c_fc": "mlp/up", "mlp.c_proj": "mlp/down"}
LINEAR = {"q_proj": "query", "k_proj": "key", "v_proj": "value", "o_proj": "out"}

Arrays = dict[str, np.ndarray]


def build(workload: Workload) -> ModelProgram:
  """The program of a workload, with the processors that this process may use."""
  torch.set_num_threads(machine.cores())
  if workload.platform == "gpu":
    torch.set_float32_matmul_precision("high")  # as JAX does there
  transformers.logging.set_verbosity_error()
  transformers.set_seed(0)
  device = "cuda" if workload.platform == "gpu" else "cpu"
  model = (_vision if workload.model == "vit" else _language)(workload).to(device)
  program = _generate(workload, model, device) if workload.model == "generate" else _train(workload, model, device)
  versions = {"torch": torch.__version__, "transformers": transformers.__version__}
  parameters = sum(parameter.numel() for parameter in model.parameters())
  return ModelProgram(program.run, program.fields | {"parameters": parameters, "versions": versions})


def _language(workload: Workload) -> torch.nn.Module:
  config = transformers.GPT2Config(
    vocab_size=workload.vocabulary,
    n_positions=workload.length + workload.new_tokens,
    n_embd=workload.width,
    n_layer=workload.layers,
    n_head=workload.heads,
    activation_function=ACTIVATION,
    layer_norm_epsilon=EPSILON / workload.width,
    resid_pdrop=0.0,
    embd_pdrop=0.0,
    attn_pdrop=0.0,
    bos_token_id=None,
    eos_token_id=None,
    attn_implementation="sdpa",
  )
  model = transformers.GPT2LMHeadModel(config)
  if workload.weights:
    model.load_state_dict(_tensors(gpt2_values(dict(np.load(workload.weights)), workload.layers)))
  return model


def _vision(workload: Workload) -> torch.nn.Module:
  config = transformers.ViTConfig(
    hidden_size=workload.width,
    num_hidden_layers=workload.layers,
    num_attention_heads=workload.heads,
    intermediate_size=4 * workload.width,
    hidden_act=ACTIVATION,
    layer_norm_eps=EPSILON,
    image_size=workload.image,
    patch_size=workload.patch,
    num_labels=workload.classes,
    attn_implementation="sdpa",
  )
  model = transformers.ViTForImageClassification(config)
  if workload.weights:
    model.load_state_dict(_tensors(vit_values(dict(np.load(workload.weights)), workload.layers, workload.patch)))
  return model


def gpt2_values(ours: Arrays, layers: int) -> Arrays:
  """Our decoder's values by GPT-2's names, the residual stream at 1/√D."""
  scale = ours["tokens/embedding"].shape[1] ** -0.5
  theirs = {
    "transformer.wte.weight": ours["tokens/embedding"],
    "lm_head.weight": ours["tokens/embedding"],
    "transformer.wpe.weight": ours["decoder/codes/learned/table"] * scale,
    **_norm("transformer.ln_f", ours, "decoder/norm"),
  }
  for i in range(layers):
    block, layer = f"transformer.h.{i}", f"decoder/layers/{i}"
    theirs |= _norm(f"{block}.ln_1", ours, f"{layer}/attention_norm") | _norm(
      f"{block}.ln_2", ours, f"{layer}/mlp_norm"
    )
    for name, source in MAPS.items():
      names = [f"attention/{part}" for part in ("query", "key", "value")] if source == "qkv" else [source]
      linears = [_flat(ours, f"{layer}/{part}", name == "attn.c_proj") for part in names]
      kernel, bias = (np.concatenate(arrays, axis=-1) for arrays in zip(*linears, strict=True))
      factor = scale if name.endswith("c_proj") else 1.0
      theirs |= {f"{block}.{name}.weight": kernel * factor, f"{block}.{name}.bias": bias * factor}
  return theirs


def vit_values(ours: Arrays, layers: int, patch: int) -> Arrays:
  """Our Vision Transformer's values by the names of `ViTForImageClassification`."""
  kernel, bias = ours["patches/kernel"], ours["patches/bias"]
  patches = "vit.embeddings.patch_embeddings.projection"
  theirs = {
    "vit.embeddings.cls_token": ours["class_token"],
    "vit.embeddings.position_embeddings": ours["encoder/codes/learned/table"][None],
    f"{patches}.weight": kernel.reshape(patch, patch, 3, -1).transpose(3, 2, 0, 1),
    f"{patches}.bias": bias,
    "classifier.weight": ours["head/kernel"].T,
    "classifier.bias": ours["head/bias"],
    **_norm("vit.layernorm", ours, "encoder/norm"),
  }
  for i in range(layers):
    block, layer = f"vit.layers.{i}", f"encoder/layers/{i}"
    theirs |= _norm(f"{block}.layernorm_before", ours, f"{layer}/attention_norm")
    theirs |= _norm(f"{block}.layernorm_after", ours, f"{layer}/mlp_norm")
    maps = {f"attention.{name}": f"attention/{source}" for name, source in LINEAR.items()}
    for name, source in {**maps, "mlp.fc1": "mlp/up", "mlp.fc2": "mlp/down"}.items():
      kernel, bias = _flat(ours, f"{layer}/{source}", source == "attention/out")
      theirs |= {f"{block}.{name}.weight": kernel.T, f"{block}.{name}.bias": bias}
  return theirs


def _norm(name: str, ours: Arrays, path: str) -> Arrays:
  return {f"{name}.weight": ours[f"{path}/scale"], f"{name}.bias": ours[f"{path}/bias"]}


def _flat(ours: Arrays, path: str, merges: bool) -> tuple[np.ndarray, np.ndarray]:
  """Kernel and bias of a linear map as `in out` and `out`; merges: its heads are inputs."""
  kernel, bias = ours[f"{path}/kernel"], ours[f"{path}/bias"].reshape(-1)
  return kernel.reshape(-1, bias.size) if merges else kernel.reshape(kernel.shape[0], -1), bias


def _tensors(values: Arrays) -> dict[str, torch.Tensor]:
  return {name: torch.from_numpy(np.array(value, np.float32, order="C")) for name, value in values.items()}


def _train(workload: Workload, model: torch.nn.Module, device: str) -> ModelProgram:
  """Loss, gradients and AdamW, fused, as the fastest that torch has; decay is on matrices, as ours."""
  model.train()
  matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
  rest = [parameter for parameter in model.parameters() if parameter.ndim < 2]
  groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": rest, "weight_decay": 0.0}]
  optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, fused=True)
  loss = _vision_loss(model) if workload.model == "vit" else _language_loss(model)
  if workload.program == "hf_compile":
    loss = torch.compile(loss, dynamic=False)

  def run(number: int) -> dict[str, Any]:
    inputs, targets = (part.to(device) for part in _batch(workload, number))
    _synchronize(device)
    begun = time.perf_counter()
    optimizer.zero_grad(set_to_none=True)
    value = loss(inputs, targets)
    value.backward()
    optimizer.step()
    _synchronize(device)
    return {"seconds": time.perf_counter() - begun, "loss": float(value.detach())}

  return ModelProgram(run, {"optimizer": "torch.optim.AdamW(fused=True)"})


def _language_loss(model: Any) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
  def loss(inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    logits = model(input_ids=inputs, use_cache=False).logits
    return cross_entropy(logits.flatten(0, 1), targets.flatten())

  return loss


def _vision_loss(model: Any) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
  def loss(inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return cross_entropy(model(pixel_values=inputs).logits, targets)

  return loss


def _batch(workload: Workload, number: int) -> tuple[torch.Tensor, torch.Tensor]:
  """Inputs and targets; pixels are brought to [−1, 1] and to `B c h w`, which our model does itself."""
  if workload.model == "vit":
    pixels, labels = images(workload, number)
    whole = torch.from_numpy(np.ascontiguousarray(2.0 * pixels.transpose(0, 3, 1, 2) - 1.0))
    return whole, torch.from_numpy(labels.astype(np.int64))
  whole = torch.from_numpy(tokens(workload, number).astype(np.int64))
  return whole[:, :-1].contiguous(), whole[:, 1:].contiguous()


def _generate(workload: Workload, model: Any, device: str) -> ModelProgram:
  """Greedy, with a cache that grows; compiled: with a static cache, as `generate` compiles its forward pass."""
  model.eval()
  options: dict[str, Any] = {"use_cache": True, "do_sample": False, "pad_token_id": 0}
  options |= {"min_new_tokens": workload.new_tokens, "max_new_tokens": workload.new_tokens}
  if workload.program == "hf_compile":
    compilation = transformers.CompileConfig(mode="default", dynamic=False)
    compilation._compile_all_devices = True  # a CPU too
    options |= {"cache_implementation": "static", "compile_config": compilation}

  def run(number: int) -> dict[str, Any]:
    prompts = torch.from_numpy(tokens(workload, number).astype(np.int64)).to(device)
    mask = torch.ones_like(prompts)
    _synchronize(device)
    begun = time.perf_counter()
    with torch.inference_mode():
      rows = model.generate(prompts, attention_mask=mask, **options)
    _synchronize(device)
    seconds = time.perf_counter() - begun
    return {"seconds": seconds, "tokens": rows[:, workload.length :].cpu().tolist()}

  return ModelProgram(run)


def _synchronize(device: str) -> None:
  if device == "cuda":
    torch.cuda.synchronize()
