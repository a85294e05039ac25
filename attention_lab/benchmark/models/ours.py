"""Our programs: the training step that every experiment runs, generation, and the start of a run."""

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
from attention_lab.benchmark.models.job import LEARNING_RATE, SEED, WEIGHT_DECAY, Job, Subject, images, tokens
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

DRAWN = Dataset("uniform", {}, {}, {}, {})
STEPS = 10**6  # of the learning rate's schedule, none of which a benchmark sees the end of
BACKEND = "/jax/core/compile/backend_compile_duration"  # reading from the compile cache is in it


def build(job: Job) -> Subject:
  """The program of a job, compiled where that can be done before it runs. Raises Unsupported for what a variant is
  not.
  """
  make = _matmul if job.program == "matmul" else _generate if job.model == "generate" else _train
  subject = make(job)
  return Subject(subject.run, subject.facts | _where())


def start(job: Job, begun: float) -> dict[str, Any]:
  """Seconds from `begun`, on the clock of `time.time`, to the end of the first training step, and of its parts."""
  spent = {"import_seconds": time.time() - begun}
  backend: list[float] = []
  listen = lambda event, seconds, **_: backend.append(seconds) if event == BACKEND else None
  jax.monitoring.register_event_duration_secs_listener(listen)
  with compile_cache.watched() as traffic:
    begun_init = time.perf_counter()
    training = _Training(job)
    state = jax.block_until_ready(training.state())
    spent["init_seconds"] = time.perf_counter() - begun_init
    executable, facts = training.compiled(state)
    begun_step = time.perf_counter()
    jax.block_until_ready(executable(state, training.batch(0)))
    spent["step_seconds"] = time.perf_counter() - begun_step
  seconds = time.time() - begun
  spent |= {"backend_seconds": sum(backend), "requests": traffic.requests, "hits": traffic.hits}
  return {"seconds": seconds, **spent, **facts, **_where()}


class _Training:
  """A model, and the house's own step on it, with AdamW and neither clipping nor dropout."""

  def __init__(self, job: Job):
    self.job, self.mesh = job, meshes.make_mesh(configs.MeshConfig(), jax.devices()[:1])
    self.task = (_vision if job.model == "vit" else _language)(job, self.mesh)
    own = configs.OptimizerConfig(learning_rate=LEARNING_RATE, warmup=1, weight_decay=WEIGHT_DECAY, clip=0.0)
    self.config = configs.Config(steps=STEPS, batch=job.batch, seed=SEED, optimizer=own)
    self.rule = optimizer.make_optimizer(own, STEPS)

  def state(self) -> states.State:
    return states.init_state(self.task, self.rule, (SEED,), self.mesh)

  def batch(self, number: int) -> dict[str, jax.Array]:
    """Batch `number`, on the device."""
    if self.job.model == "vit":
      pixels, labels = images(self.job, number)
      host = {"image": pixels, "label": labels}
    else:
      host = {"tokens": tokens(self.job, number)}
    return jax.block_until_ready(meshes.put(host, meshes.batch_sharding(self.mesh)))

  def compiled(self, state: states.State) -> tuple[Callable, dict[str, Any]]:
    """The compiled step and its costs; times in seconds."""
    batch = self.batch(0)
    with compile_cache.watched() as traffic:
      marks = [time.perf_counter()]
      traced = step.make_step(self.task, self.rule, self.config, self.mesh).trace(state, batch)
      marks.append(time.perf_counter())
      lowered = traced.lower()
      marks.append(time.perf_counter())
      executable = lowered.compile()
      marks.append(time.perf_counter())
    return executable, {
      "parameters": optimizer.count(state.params),
      "flops": _flops(traced),
      "flops_from": "program",
      "memory": programs.memory(executable),
      "trace_seconds": marks[1] - marks[0],
      "lower_seconds": marks[2] - marks[1],
      "compile_seconds": marks[3] - marks[0],
      "compile_cached": traffic.hits > 0,
    }


def _train(job: Job) -> Subject:
  training = _Training(job)
  held = {"state": training.state()}
  _keep(job, held["state"].params)
  executable, facts = training.compiled(held["state"])

  def run(number: int) -> dict[str, Any]:
    batch = training.batch(number)
    jax.block_until_ready(held["state"])
    begun = time.perf_counter()
    held["state"], metrics = executable(held["state"], batch)
    host = time.perf_counter() - begun
    jax.block_until_ready((held["state"], metrics))
    seconds = time.perf_counter() - begun
    return {"seconds": seconds, "host_seconds": host, "loss": float(metrics["loss"])}

  return Subject(run, facts)


def _generate(job: Job) -> Subject:
  """Prefill and greedy decoding, which compile when they first run; the loop's length is not known to a counter."""
  model = _decoder(job, job.length + job.new_tokens, None)
  params = jax.jit(model.init, compiler_options=states.FAST_COMPILE)(states.init_key(jnp.uint32(SEED)))
  _keep(job, params)

  def run(number: int) -> dict[str, Any]:
    prompts = list(tokens(job, number))
    begun = time.perf_counter()
    rows = generate(model, params, prompts, job.new_tokens, Sampling(greedy=True))
    return {"seconds": time.perf_counter() - begun, "tokens": np.stack(rows).tolist()}

  return Subject(run, {"parameters": optimizer.count(params)})


def _matmul(job: Job) -> Subject:
  product, operands = program.matmul(job.matmul, "float32")
  sample = product.start(operands)

  def run(_: int) -> dict[str, Any]:
    begun = time.perf_counter()
    sample.run()
    return {"seconds": time.perf_counter() - begun}

  return Subject(run, {"flops": product.flops})


def _language(job: Job, mesh: Mesh) -> Task:
  own = _decoder(job, job.length, mesh)
  kind = language_modeling
  judged = {"loss": functools.partial(kind.loss, own), "score": functools.partial(kind.score, own)}
  return _task(kind.NAME, own, job.length, judged | {"summarize": kind.summarize})


def _vision(job: Job, mesh: Mesh) -> Task:
  config = image_classification.ModelConfig(**_sizes(job), patch=job.patch, pooling="cls")
  check(config, image_classification.NAME, causal=False, grid=True)
  shape = (job.image, job.image, 3)
  own = functional(lambda key: VisionTransformer(config, shape, job.classes, key=key, mesh=mesh))
  judged = classification.functions(own, image_classification.forward, DRAWN)
  return _task(image_classification.NAME, own, (job.image // job.patch) ** 2 + 1, judged)


def _decoder(job: Job, room: int, mesh: Mesh | None) -> Functional:
  config = language_modeling.ModelConfig(**_sizes(job), tied=True)
  check(config, language_modeling.NAME, causal=True)
  return functional(lambda key: TransformerLM(config, job.vocabulary, room, key=key, tied=True, mesh=mesh))


def _sizes(job: Job) -> dict[str, Any]:
  sizes = {name: getattr(job, name) for name in ("attention", "layers", "width", "heads")}
  return sizes | {"positions": "learned", "dropout": 0.0}


def _task(name: str, model: Functional, length: int, judged: Mapping[str, Callable]) -> Task:
  """A task of the house on data that each batch draws anew; `judged` has its loss and scores."""
  return Task(
    name=name,
    source=DRAWN,
    model=model,
    primary="loss",
    higher_is_better=False,
    tokens_per_example=length,
    chance=None,
    positions="learned",
    **judged,
  )


def _where() -> dict[str, Any]:
  return {"device": provenance.device(), "platform": jax.default_backend(), "versions": provenance.versions()}


def _flops(traced: Any) -> int | None:
  try:
    return programs.count(traced.jaxpr.jaxpr)
  except ValueError:
    return None


def _keep(job: Job, params: Any) -> None:
  """Writes the initial values for the peers, where the job says so."""
  if job.weights:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}
    with pathlib.Path(job.weights).open("wb") as file:
      np.savez(file, **named)
