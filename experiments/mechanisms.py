r"""One mechanism at a time (recall, copying, needles, chains, …): trains a small decoder on generated tokens.

On a laptop (about a minute on 2 CPU cores; softmax reaches accuracy 1.00):
  python -m experiments.mechanisms --config.data.name=in_context --attention=softmax --workdir=runs/in_context
One GPU, a needle in haystacks of up to eight times the trained length:
  python -m experiments.mechanisms --config.data.name=multi_key --config.data.length=256 --config.data.longest=2048 \
    --config.model.width=128 --config.batch=256 --config.steps=5000 --workdir=runs/multi_key
A pod, the same command on every host:
  python -m experiments.mechanisms --coordinator=auto --config.data.name=noisy --config.batch=1024 \
    --workdir=/shared/noisy
"""

from attention_lab import cli
from attention_lab.tasks import mechanisms
from attention_lab.workflows import training

CONFIG = cli.define_config(mechanisms.Config())


def main() -> None:
  training.run(mechanisms, CONFIG.value)


if __name__ == "__main__":
  cli.run(main, CONFIG)
