r"""Multi-query associative recall: trains a decoder to give the value that stood behind a key.

On a laptop (10 s on 2 CPU cores; softmax reaches accuracy 1.00, local(window=4) 0.15):
  python -m experiments.recall --attention=softmax --workdir=runs/recall
One GPU, the published size (Arora et al. 2023: vocabulary 8,192, 2 layers):
  python -m experiments.recall --config.data.vocabulary=8192 --config.data.length=256 --config.data.pairs=16 \
    --config.model.width=128 --config.batch=256 --config.steps=20000 --workdir=runs/recall
A pod, the same command on every host:
  python -m experiments.recall --coordinator=auto --config.batch=1024 --workdir=/shared/recall
"""

from attention_lab import cli
from attention_lab.tasks import recall
from attention_lab.workflows import training

CONFIG = cli.define_config(recall.Config())


def main() -> None:
  training.run(recall, CONFIG.value)


if __name__ == "__main__":
  cli.run(main, CONFIG)
