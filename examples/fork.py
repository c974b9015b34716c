"""A session is a value: two endings of one beginning, and the log-probability of each, without feeding the beginning twice.

python examples/fork.py RUN "The function" " returns a value." " return a value."
"""

import sys

import ritornello
from ritornello.serve.session import start


def main(run: str, beginning: str, *endings: str) -> None:
    loaded = ritornello.load(run)
    session = start(loaded.model, loaded.tokenizer.bos, seed=0).feed(loaded.tokenizer.encode(beginning))
    for ending in endings:
        nats, fork = 0.0, session
        for token in loaded.tokenizer.encode(ending):
            nats -= float(fork.logits.float().log_softmax(-1)[token])
            fork = fork.feed([token])
        print(f"{nats:8.2f} nats  {beginning}{ending}")


if __name__ == "__main__":
    main(*sys.argv[1:])
