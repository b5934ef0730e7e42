"""Generates `.env` files and says how python-dotenv reads each: one JSON object a line.

    python3 dotenv_files.py SEED COUNT

`skipped` has the lines that statements which are not understood begin on. python-dotenv warns of the
line on which the blank lines before such a statement begin.
"""

import io
import json
import logging
import os
import random
import sys

from dotenv.main import DotEnv
from dotenv.parser import parse_stream

PROCESS = {"HOME": "/home/mia", "EMPTY": "", "A": "process"}

PIECES = [
    "A", "B", "C_1", "MY-VAR", "HOME", "EMPTY", "TOGETHER_API_KEY", "WANDB_MODE", "value", "hello world", "it's", "é", "日",
    "=", "=", "=", " = ", "'", "'", '"', '"', "\\", "\\n", "\\'", '\\"', "\\\\", "\\x", "#", " #", "# ", " ", "\t",
    "\n", "\n", "\n", "\r\n", "\r", "\n\n", "export", "export ", "export\t", "${", "}", ":-", ":", "$", "${A}", "${B:-x}",
    "\u00a0", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u3000", "\ufeff", "{", ",", "[1]", "`", "“", "\u200b",
]
NAMES = ["A", "B", "C_1", "MY-VAR", "'quoted name'", "HOME", "export", "WANDB_MODE", "ü", "a.b"]
VALUES = [
    "", "1", "hello world", "it's fine", '{"a": 1}', "'single'", '"double"', "'a\\'b'", '"a\\"b\\n\\q"', "'two\nlines'", '"two\nlines\n"',
    "a#b", "a #b", "#a", "'open", '"open', "'a' b", '"a"#b', "${A}", "${B}/${HOME}", "${C:-d}", "'${A}'", "$A", "${", "\\", "x\\\\",
]


def soup(draw):
    return "".join(draw.choice(PIECES) for _ in range(draw.randrange(1, 25)))


def lines(draw):
    text = draw.choice(["", "", "", "\ufeff", "\n\n", " "])
    for _ in range(draw.randrange(1, 7)):
        text += draw.choice(["", "", "", " ", "\t", "export ", "# "])
        text += draw.choice(NAMES) + draw.choice(["=", "=", "=", " = ", "= ", " ", ":", ""])
        text += draw.choice(VALUES) + draw.choice(["", "", "", " ", " # note", "#note", " x"])
        text += draw.choice(["\n", "\n", "\n", "\r\n", "\r", "\n\n\n", " \n"])
    return text if draw.random() < 0.7 else text.rstrip("\r\n")


def disturbed(draw):
    text = lines(draw)
    for _ in range(draw.randrange(1, 4)):
        at = draw.randrange(len(text) + 1)
        text = text[:at] + draw.choice(PIECES) + text[at + draw.randrange(3) :]
    return text


def opened(text):
    """`text` as a file that is opened with UTF-8."""
    return io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8")


def line_of(statement):
    text = statement.original.string
    return statement.original.line + text[: len(text) - len(text.lstrip())].count("\n")


def main():
    logging.disable()
    os.environ.clear()
    os.environ.update(PROCESS)
    draw = random.Random(int(sys.argv[1]))
    for _ in range(int(sys.argv[2])):
        text = draw.choice([soup, lines, disturbed])(draw)
        values = DotEnv(None, stream=opened(text), override=False).dict()
        print(json.dumps({
            "text": text,
            "variables": {name: value for name, value in values.items() if value is not None},
            "skipped": [line_of(statement) for statement in parse_stream(opened(text)) if statement.error],
        }))


main()
