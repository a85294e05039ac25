"""The lab's programs: the training step that every experiment runs, generation, and the start of a run."""

import functools
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from attention_lab import compile_cache
from attention_lab import compiled as programs
from attention_lab import config as configs
from attention_lab import mesh as meshes
from attention_lab.benchmark import program
from attention_lab.benchmark.models.workload import (
  LEARNING_RATE,
  SEED,
  WEIGHT_DECAY,
  ModelProgram,
  Workload,
  images,
  tokens,
)
from attention_lab.data.dataset import Dataset
from attention_lab.models.functional import Functional, functional
from attention_lab.models.generate import Sampling, generate
from attention_lab.models.language_model import TransformerLM
from attention_lab.models.vision_transformer import VisionTransformer
from attention_lab.results import provenance
from attention_lab.tasks import image_classification, language_modeling
from attention_lab.tasks.base import Task, check
from attention_lab.tasks.parts import classification
from attention_lab.train import optimizer, step
from attention_lab.train import state as states

DRAWN = Dataset("uniform", {}, {}, {}, {})  # stands for data that each batch draws anew
STEPS = 10**6  # of the learning rate's schedule, whose end no benchmark sees
BACKEND = "/jax/core/compile/backend_compile_duration"  # JAX's event of compiling, or of reading from the cache


def build(workload: Workload) -> ModelProgram:
  """The program of a workload, compiled where that can be done before it runs; Unsupported where a variant cannot."""
  make = _matmul if workload.program == "matmul" else _generate if workload.model == "generate" else _train
  model_program = make(workload)
  return ModelProgram(model_program.run, model_program.fields | _where())


def start(workload: Workload, begun: float) -> dict[str, Any]:
  """The seconds from `begun`, on the clock of `time.time`, to the end of the first training step, and of its parts."""
  spent = {"import_seconds": time.time() - begun}
  backend: list[float] = []

  def listen(event: str, duration_secs: float, **_: str | int) -> None:
    if event == BACKEND:
      backend.append(duration_secs)

  jax.monitoring.register_event_duration_secs_listener(listen)
  with compile_cache.watched() as traffic:
    begun_init = time.perf_counter()
    training = _Training(workload)
    state = jax.block_until_ready(training.state())
    spent["init_seconds"] = time.perf_counter() - begun_init
    executable, costs = training.compiled(state)
    begun_step = time.perf_counter()
    jax.block_until_ready(executable(state, training.batch(0)))
    spent["step_seconds"] = time.perf_counter() - begun_step
  seconds = time.time() - begun
  spent |= {"backend_seconds": sum(backend), "requests": traffic.requests, "hits": traffic.hits}
  return {"seconds": seconds, **spent, **costs, **_where()}


class _Training:
  """A model, and the lab's own training step on it, with AdamW and neither clipping nor dropout."""

  def __init__(self, workload: Workload) -> None:
    self.workload, self.mesh = workload, meshes.make_mesh(configs.MeshConfig(), jax.devices()[:1])
    self.task = (_vision if workload.model == "vit" else _language)(workload, self.mesh)
    settings = configs.OptimizerConfig(learning_rate=LEARNING_RATE, warmup=0, weight_decay=WEIGHT_DECAY, clip=0.0)
    self.config = configs.Config(steps=STEPS, batch=workload.batch, seed=SEED, optimizer=settings)
    self.optimizer = optimizer.make_optimizer(settings, STEPS, self.task.model.undecayed)

  def state(self) -> states.State:
    return states.init_state(self.task, self.optimizer, (SEED,), self.mesh)

  def batch(self, number: int) -> dict[str, jax.Array]:
    """The arrays of batch `number`, on the device."""
    if self.workload.model == "vit":
      pixels, labels = images(self.workload, number)
      host = {"image": pixels, "label": labels}
    else:
      host = {"tokens": tokens(self.workload, number)}
    return jax.block_until_ready(meshes.put(host, meshes.batch_sharding(self.mesh)))

  def compiled(self, state: states.State) -> tuple[Callable, dict[str, Any]]:
    """The compiled step, and its costs with times in seconds."""
    batch = self.batch(0)
    with compile_cache.watched() as traffic:
      marks = [time.perf_counter()]
      jitted: Any = step.make_step(self.task, self.optimizer, self.config, self.mesh)
      traced = jitted.trace(state, batch)
      marks.append(time.perf_counter())
      lowered = traced.lower()
      marks.append(time.perf_counter())
      executable = lowered.compile()
      marks.append(time.perf_counter())
    return executable, {
      "parameters": optimizer.count(state.params),
      "flops": program.count_flops(traced),
      "flops_from": "program",
      "memory": programs.memory(executable),
      "trace_seconds": marks[1] - marks[0],
      "lower_seconds": marks[2] - marks[1],
      "compile_seconds": marks[3] - marks[0],
      "compile_cached": traffic.hits > 0,
    }


def _train(workload: Workload) -> ModelProgram:
  training = _Training(workload)
  current = {"state": training.state()}
  _save_weights(workload, current["state"].params)
  executable, costs = training.compiled(current["state"])

  def run(number: int) -> dict[str, Any]:
    batch = training.batch(number)
    jax.block_until_ready(current["state"])
    begun = time.perf_counter()
    current["state"], metrics = executable(current["state"], batch)
    host = time.perf_counter() - begun
    jax.block_until_ready((current["state"], metrics))
    seconds = time.perf_counter() - begun
    return {"seconds": seconds, "host_seconds": host, "loss": float(metrics["loss"])}

  return ModelProgram(run, costs)


def _generate(workload: Workload) -> ModelProgram:
  """Prefill and greedy decoding, which compile when they first run; the FLOPs of their loop cannot be counted."""
  model = _decoder(workload, workload.length + workload.new_tokens, None)
  params = jax.jit(model.init, compiler_options=states.FAST_COMPILE)(states.init_key(jnp.uint32(SEED)))
  _save_weights(workload, params)

  def run(number: int) -> dict[str, Any]:
    prompts = list(tokens(workload, number))
    begun = time.perf_counter()
    rows = generate(model, params, prompts, workload.new_tokens, Sampling(greedy=True))
    return {"seconds": time.perf_counter() - begun, "tokens": np.stack(rows).tolist()}

  return ModelProgram(run, {"parameters": optimizer.count(params)})


def _matmul(workload: Workload) -> ModelProgram:
  product, operands = program.matmul(workload.matmul, "float32")
  sample = product.start(operands)

  def run(_: int) -> dict[str, Any]:
    begun = time.perf_counter()
    sample.run()
    return {"seconds": time.perf_counter() - begun}

  return ModelProgram(run, {"flops": product.flops})


def _language(workload: Workload, mesh: Mesh) -> Task:
  model = _decoder(workload, workload.length, mesh)
  loss, score = (functools.partial(f, model) for f in (language_modeling.loss, language_modeling.score))
  functions = {"loss": loss, "score": score, "summarize": language_modeling.summarize}
  return _task(language_modeling.NAME, model, workload.length, functions)


def _vision(workload: Workload, mesh: Mesh) -> Task:
  config = image_classification.ModelConfig(**_sizes(workload), patch=workload.patch, pooling="cls")
  check(config, image_classification.NAME, causal=False, grid=True)
  shape = (workload.image, workload.image, 3)
  model = functional(lambda key: VisionTransformer(config, shape, workload.classes, key=key, mesh=mesh))
  functions = classification.functions(model, image_classification.forward, DRAWN)
  return _task(image_classification.NAME, model, (workload.image // workload.patch) ** 2 + 1, functions)


def _decoder(workload: Workload, room: int, mesh: Mesh | None) -> Functional:
  config = language_modeling.ModelConfig(**_sizes(workload), tied=True)
  check(config, language_modeling.NAME, causal=True)
  return functional(lambda key: TransformerLM(config, workload.vocabulary, room, key=key, tied=True, mesh=mesh))


def _sizes(workload: Workload) -> dict[str, Any]:
  sizes = {name: getattr(workload, name) for name in ("attention", "layers", "width", "heads")}
  return sizes | {"positions": "learned", "dropout": 0.0}


def _task(name: str, model: Functional, length: int, functions: Mapping[str, Any]) -> Task:
  """A task of the lab on data that each batch draws anew; `functions` has its loss and scores."""
  return Task(
    name=name,
    source=DRAWN,
    model=model,
    primary="loss",
    higher_is_better=False,
    tokens_per_example=length,
    chance=None,
    resolved_positions="learned",
    **functions,
  )


def _where() -> dict[str, Any]:
  return {"device": provenance.device(), "platform": jax.default_backend(), "versions": provenance.versions()}


def _save_weights(workload: Workload, params: Any) -> None:
  """Writes the initial values for the peers, where the workload says so."""
  if workload.weights:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    named: dict[str, Any] = {
      jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves
    }
    with pathlib.Path(workload.weights).open("wb") as file:
      np.savez(file, **named)
