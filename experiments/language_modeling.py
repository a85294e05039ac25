r"""Language modelling: trains a decoder to predict the next token of text, judged in bits per byte.

On a laptop (20 s on 2 CPU cores, 2.12 bits per byte; the Python documentation, which every Python ships):
  python -m experiments.language_modeling --attention=softmax --workdir=runs/docs
nanoGPT's recipe for a CPU (2 minutes; 1.62 nats per character on validation):
  python -m experiments.language_modeling --config.data.name=tiny_shakespeare --config.data.dir=DIR \
    --config.data.tokenizer=char --config.data.vocabulary=0 --config.data.length=64 --config.model.layers=4 \
    --config.model.width=128 --config.model.heads=4 --config.batch=12 --config.steps=2000 \
    --config.optimizer.learning_rate=2e-3 --config.optimizer.warmup=100 --config.optimizer.weight_decay=0.1
WikiText-2 (63 minutes of processor time, on one core; perplexity 116 per word on test, of 5-grams 229):
  python -m experiments.language_modeling --config.data.name=wikitext2 --config.data.dir=DIR --huge_pages \
    --config.data.tokenizer=bpe --config.data.vocabulary=8192 --config.data.length=256 --config.model.layers=4 \
    --config.model.width=256 --config.model.heads=4 --config.model.dropout=0.15 --config.batch=8 --config.steps=7000 \
    --config.optimizer.learning_rate=1.5e-3 --config.optimizer.weight_decay=0.1
One GPU, any text file or folder of text files:
  python -m experiments.language_modeling --config.data.path=books/ --config.data.vocabulary=8192 \
    --config.data.length=1024 --config.model.layers=12 --config.model.width=768 --config.model.heads=12 \
    --config.model.dtype=bfloat16 --config.batch=32 --config.steps=50000 --workdir=runs/books
A pod, the same command on every host:
  python -m experiments.language_modeling --coordinator=auto --config.mesh.fsdp=16 --config.data.path=/shared/books \
    --config.batch=512 --workdir=/shared/runs/books
"""

from attention_lab import cli
from attention_lab.tasks import language_modeling
from attention_lab.workflows import training

CONFIG = cli.define_config(language_modeling.Config())


def main() -> None:
  training.run(language_modeling, CONFIG.value)


if __name__ == "__main__":
  cli.run(main, CONFIG)
