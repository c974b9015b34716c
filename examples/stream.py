"""Train for a minute, then let the model write for as long as you like: its state stays the same size.

python examples/stream.py [TEXT] [RUN]
"""

import sys
from collections import deque

import ritornello
from ritornello.serve.session import start, stream
from ritornello.state import nbytes


def main(text: str | None = None, run: str | None = None) -> None:
    path = run or ritornello.run(text, minutes=1)
    loaded = ritornello.load(path)
    session = start(loaded.model, loaded.tokenizer.bos, seed=0)
    print(f"state after 0 tokens: {nbytes(session.state):,} bytes")
    steps = deque(stream(session, temperature=0.7, max_tokens=2000, stop=None), maxlen=300)
    print(loaded.tokenizer.decode([token for token, _ in steps]))
    last = steps[-1][1]
    print(f"state after {last.count:,} tokens: {nbytes(last.state):,} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
