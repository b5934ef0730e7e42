#!/usr/bin/env python3
"""The client's own check as an oracle for `ctxtune check`.

    check_sdk.py generate DIR      write the files, good, bad and odd
    check_sdk.py judge DIR         print {"name": verdict} as JSON

`generate` needs the standard library only and gives equal bytes each time. `judge` runs
`check_file` of the `together` package, version 3.1.1. The first word of a file's name is
its family; check_sdk.rs knows in which families the two verdicts differ on purpose.
"""

import json
import os
import random
import re
import sys

GOOD = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}'
MIB = 1 << 20

# Everything `str.isspace` holds for, and what only looks like it.
SPACES = [chr(code) for code in range(0x110000) if chr(code).isspace()]
LOOKALIKES = ["\u200b", "\ufeff", "\u180e", "\u2060", "\u00ad", "\u0000", "\u0008", "\u001b", "\u007f", "\u200e"]

GOOD_VALUES = [
    "0", "-0", "-1", "1.5", "-1.5e3", "1E+2", "1e-2", "0e0", "1e400", "-1e400", "1e-999", "0.1e-400",
    "9223372036854775807", "9223372036854775808", "18446744073709551615", "18446744073709551616",
    "-9223372036854775808", "-9223372036854775809", "1" * 50, "-" + "9" * 4300, "1" * 4300,
    "1" * 5000 + ".5", "1" * 5000 + "e1", "0." + "3" * 5000, "2.2250738585072011e-308",
    "true", "false", "null", "[]", "{}", "[[], {}]", '""', "[1,\t2 ,3 ]", '{"b": 1, "b": 2}',
    '"\\u0000"', '"\\ud83d\\ude00"', '"\\uD83D\\uDE00"', '"\\"\\\\\\/\\b\\f\\n\\r\\t"', '"\u2028\u2029\u0085\u00a0"',
    '"\u007f"', '"\U0010ffff"', '"\ufeff"', '"\u200b"', '"e\u0301"', '"<|eot_id|>"', '"\\u00e9"', '"\\u002F"',
]

BAD_VALUES = [
    "01", "-01", "1.", ".5", "1.e5", "1e", "1e+", "+1", "-", "--1", "0x10", "1_000", "1,", "00", "-.5", "1e5.5",
    "1" * 4301, "-" + "1" * 4301, "9" * 9000,
    "tru", "True", "nul", "None", "truee", "nullnull", "undefined", "inf", "nan", "-nan", "Inf", "+Infinity", "-NaN",
    "[", "]", "[1", "[1,]", "[,1]", "[1 2]", "[1}", "{", "}", '{"b"}', '{"b":}', '{"b":1,}', "{b:1}", "{'b':1}",
    '{"b" 1}', '{"b"::1}', "{1:2}", '{"b":1 "c":2}', "{,}", "[1,,2]",
    '"', '"abc', "'abc'", '"\\x41"', '"\\u12"', '"\\u12g4"', '"\\u 123"', '"\\', '"\\"', '"\\a"', '"\\U0001F600"',
    '"a" "b"', '"a"b', "//x", "/* x */ 1", "1 // x", "\ufeff1", "\u00a01", "\u000c1", "1\u000b", "\u20281",
]

NOT_OBJECTS = ["[]", '[{"a": 1}]', "1", "-1.5", '"text"', "true", "null", "1e400", "1" * 30, "[" * 900 + "]" * 900]

NON_FINITE = ["NaN", "Infinity", "-Infinity", "[NaN]", '{"b": Infinity}']

LONE_SURROGATES = ['"\\ud800"', '"\\udc00"', '"\\ud800\\ud800"', '"\\udc00\\ud800"', '"\\ud83dx"', '"\\uD800\\u0041"', '{"\\udfff": 1}']

NOT_UTF8 = [
    b"\xff", b"\xfe\xff", b"\x80", b"\xc3", b"\xc3(", b"\xc0\xaf", b"\xe0\x80\xaf", b"\xed\xa0\x80", b"\xf0\x80\x80\x80",
    b"\xf4\x90\x80\x80", b"\xf8\x88\x80\x80\x80", b"caf\xe9", b"\xe2\x82", b"\xf0\x9f\x98",
]

ENDS = {"lf": "\n", "cr": "\r", "crlf": "\r\n", "lfcr": "\n\r", "crcrlf": "\r\r\n"}


def generate(directory):
    os.makedirs(directory, exist_ok=True)

    def write(name, content):
        data = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
        with open(os.path.join(directory, name), "wb") as target:
            target.write(data)

    def family(name, contents, suffix=".jsonl"):
        for number, content in enumerate(contents):
            write(f"{name}-{number:03}{suffix}", content)

    def second_line(values):
        for value in values:
            yield f'{GOOD}\n{{"a": {value}}}\n{GOOD}\n'

    family("good", good_files())
    family("value", second_line(GOOD_VALUES))
    family("bad", second_line(BAD_VALUES))
    family("control", second_line(f'"x{chr(code)}y"' for code in range(32)))
    family("type", (f"{GOOD}\n\n{value}\n{{" for value in NOT_OBJECTS))
    family("space", (f"{space}\n{GOOD}\n{space}{space}{GOOD}{space}\n" for space in SPACES))
    family("blank", (f"{space * 3}\n" for space in SPACES))
    family("lookalike", (f"{GOOD}\n{mark}\n{GOOD}" for mark in LOOKALIKES))
    family("padded", (f"{mark}{GOOD}{mark}\n" for mark in LOOKALIKES))
    family("between", (f'{{"a":{mark}1}}\n{{"b": 1,\n' for mark in ["\x0b", "\x0c", "\x1c", "\u00a0", "\u2003", " ", "\t"]))
    family("empty", empty_files())
    family("encoding", not_utf8_files())
    family("blocks", block_files())
    family("mutated", mutated_files())
    family("nonfinite", second_line(NON_FINITE))
    family("surrogate", second_line(LONE_SURROGATES))
    family("deep", (nested(depth) for depth in (100, 900, 5_000, 9_000)))
    family("abyss", (nested(depth) for depth in (150_000, 400_000)))
    for name in ["a.JSONL", "a.json", "a.jsonl.gz", "a.ndjson", "a.txt", "a.csv", "noext", ".jsonl", "a.jsonl.", "a.b.jsonl"]:
        write(f"name-{name}", GOOD + "\n") if name != ".jsonl" else write(name, GOOD + "\n")
    if os.name == "posix":
        # Sparse: nothing of it is on the disk, and nobody reads it.
        with open(os.path.join(directory, "huge-000.jsonl"), "wb") as target:
            target.truncate(int(50.1 * (1 << 30)) + 1)


def good_files():
    text = '{"text": "a"}'
    yield GOOD
    yield GOOD + "\n"
    yield "{}"
    yield "{}\n" * 1000
    yield f"\n\n{GOOD}\n\n\n{text}\n\n"
    yield f'  {GOOD}  \n\t{text}\t\n'
    yield '{"a": [1,\t2],  "b" :\t{ } }\n'
    yield "".join(f'{{"text": "{"x" * length}"}}\n' for length in range(0, 300, 7))
    for end in ENDS.values():
        yield end.join([GOOD, "", text, " ", text])
        yield end.join([GOOD, text]) + end
        yield end + GOOD + end + end
        yield GOOD + end + '{"a": 1' + end + text
    yield f"{GOOD}\r{text}\n{text}\r\n{text}\n\r{text}"


def empty_files():
    yield ""
    yield from ["\n", "\r", "\r\n", " ", "\n" * 5000, " \r\n\t\r \n", "\u3000\n\u00a0"]


def not_utf8_files():
    good = GOOD.encode()
    for bad in NOT_UTF8:
        yield good + b"\n" + b'{"a": "' + bad + b'"}\n' + good
        yield bad
    yield good + b"\n   \xff   \n"
    yield good + b"\n\xc3\n\xa9\n"
    yield good + b'\n{"a": 1}\xff\n'
    # The encoding is judged before everything else in the file.
    yield b"{not json\n" + good + b"\n\xff"
    for encoding in ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"]:
        yield (GOOD + "\n" + GOOD + "\n").encode(encoding)


def block_files():
    """Lines, line ends and faults around the edges of blocks of 1 MiB."""
    for length in (MIB - 2, MIB - 1, MIB, MIB + 1, 3 * MIB + 5):
        for end in ("\n", "\r", "\r\n"):
            line = '{"text": "' + "x" * (length - 12) + '"}'
            yield line + end + GOOD + end + " " * MIB + end + "[1" + end + GOOD
            yield line + end + "\u3000" * 400_000 + end + GOOD
    yield "\r\n" * (MIB + 1) + GOOD
    yield " " + "\r\n" * (MIB + 1) + "{"
    yield GOOD + "\n" + '{"text": "' + "é" * (MIB + 1) + '"}\n' + GOOD + "\n1\n"
    yield '{"text": "' + "\\n" * MIB + "\t" + '"}\n'
    yield (GOOD + "\n") * 40_000 + "{}{}\n" + GOOD
    yield (GOOD + "\n") * 40_000


def mutated_files():
    randomness = random.Random(2024)
    alphabet = [b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"\n", b"\r", b" ", b"0", b"1", b"e", b".", b"-", b"\xc3", b"\xa9", b"\x00", b"u", b"t"]
    base = (
        '{"messages": [{"role": "user", "content": "caf\u00e9 \\"x\\" \\u00e9"}, {"role": "assistant", "content": null}]}\r\n'
        '{"prompt": "a", "completion": [1, -2.5e3, true, false, null, {}]}\n\n  {"text": "\u3000"}\n'
    ).encode()
    for _ in range(300):
        data = bytearray(base)
        for _ in range(randomness.choice([1, 1, 1, 2, 3])):
            place = randomness.randrange(len(data))
            what = randomness.randrange(3)
            if what == 0:
                data[place : place + 1] = randomness.choice(alphabet)
            elif what == 1:
                data[place:place] = randomness.choice(alphabet)
            else:
                del data[place : place + randomness.choice([1, 1, 2, 5])]
        yield bytes(data)


def nested(depth):
    return f'{GOOD}\n{{"a": {"[" * depth}{"]" * depth}}}\n{GOOD}\n'


def judge(directory):
    from together.lib.utils.files import check_file

    fields = ["is_check_passed", "file_size", "utf8", "load_json", "line_type", "has_min_samples", "num_samples"]
    verdicts = {}
    for name in sorted(os.listdir(directory)):
        try:
            report = check_file(os.path.join(directory, name))
        except Exception as error:
            verdicts[name] = {"raised": type(error).__name__}
            continue
        verdict = {field: report[field] for field in fields}
        named = re.search(r"on line (\d+)", report["message"])
        verdict["first_bad_line"] = report.get("line_number", int(named[1]) if named else None)
        verdicts[name] = verdict
    json.dump(verdicts, sys.stdout)


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("generate", "judge"):
        sys.exit(__doc__)
    {"generate": generate, "judge": judge}[sys.argv[1]](sys.argv[2])
