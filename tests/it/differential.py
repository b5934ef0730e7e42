#!/usr/bin/env python3
"""An oracle for `ctxtune prepare` that shares no code with it.

    differential.py generate DIR --records 10000 --seed 7 [--only LABEL]...
    ctxtune prepare DIR/corpus -o OUT --max-rejects 100%
    differential.py compare DIR OUT
    differential.py judge FILE...

`generate` writes random records to DIR/corpus, about three quarters of them usable, and
what was done to each to DIR/labels.tsv; equal seeds give equal bytes. `compare` reads the
corpus with Python's own `json` and `ast`, by the rules of `judge_record`, and looks whether
OUT holds exactly the accepted records, each with exactly the texts expected. It exits 1
with the first differences. `judge` prints the verdict on single files.

Standard library only. Nothing here knows how the product works, only what it promises.
"""

import argparse
import ast
import collections
import io
import json
import os
import random
import re
import sys
import tokenize
import warnings

USER_PREFIX = "Generate a detailed socialized context for the following story:\n\n"

# What Python takes and the product refuses, on purpose. A record that only these
# speak against has to be refused; `compare` counts each.
DEVIATIONS = {
    "lone surrogate": "an escape \\ud800-\\udfff without its other half, in a used text or any key's name",
    "integer range": "a timestep outside -2^63 .. 2^64-1",
    "nesting": "more than 1024 open brackets, anywhere in the JSON",
    "adjacent strings": "strings side by side in a Python literal",
    "literal surrogate": "a Python literal whose strings hold surrogates",
    "named escape": "\\N{...} in a string of a Python literal",
}
MAX_DEPTH = 1024


class Rejected(Exception):
    """The record is not usable, by the rules Python and the product share."""


class Object(dict):
    """A JSON object that knows whether a key came twice."""

    repeats = False


def need(condition, reason):
    if not condition:
        raise Rejected(reason)


def judge_record(data):
    """(story, context, deviations) of the record in `data`; raises Rejected."""
    record, deviations = read_json(data)
    # Used values only: whatever Python reads elsewhere is of no account.
    used_object(record, "root")
    for key in ("story", "question", "answer", "socialized_context"):
        need(key in record, f"missing {key}")
    need(type(record["question"]) is str, "question")
    need(type(record["answer"]) is str, "answer")
    need(type(record.get("is_correct")) in (bool, type(None)), "is_correct")
    context = read_context(record["socialized_context"], deviations)
    story = read_story(record["story"], deviations)
    used = texts_of([record["question"], record["answer"], context, story])
    if any(map(has_surrogate, used)) and "literal surrogate" not in deviations:
        deviations.add("lone surrogate")
    return story, context, deviations


def texts_of(value):
    """Every string in a value, keys included."""
    if type(value) is str:
        yield value
    elif type(value) is list:
        for item in value:
            yield from texts_of(item)
    elif isinstance(value, dict):
        yield from texts_of(list(value))
        yield from texts_of(list(value.values()))


def has_surrogate(text):
    return any("\ud800" <= character <= "\udfff" for character in text)


def read_json(data):
    deviations = set()

    def pairs(items):
        value = Object(items)
        value.repeats = len(value) < len(items)
        if any(has_surrogate(key) for key, _ in items):
            deviations.add("lone surrogate")
        return value

    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
        value = json.loads(text, object_pairs_hook=pairs)
    except ValueError as error:
        raise Rejected(f"json: {error}") from None
    if depth(text) > MAX_DEPTH:
        deviations.add("nesting")
    return value, deviations


def depth(text):
    """How many brackets of valid JSON are open at once."""
    deepest = level = 0
    for token in re.findall(r'"(?:[^"\\]|\\.)*"|[][{}]', text):
        level += (token in "[{") - (token in "]}")
        deepest = max(deepest, level)
    return deepest


def used_object(value, place):
    need(type(value) is Object, f"{place} is no object")
    need(not value.repeats, f"{place} repeats a key")


def read_context(value, deviations):
    used_object(value, "socialized_context")
    names = value.get("agents_names")
    need(type(names) is list and names, "agents_names")
    need(all(type(name) is str for name in names), "an agent's name")
    steps = value.get("socialized_context")
    need(type(steps) is list and steps, "no steps")
    steps = [read_step(step, index, names, deviations) for index, step in enumerate(steps)]
    return {"agents_names": names, "socialized_context": steps}


def read_step(step, index, names, deviations):
    used_object(step, f"step {index}")
    timestep = step.get("timestep")
    need(type(timestep) in (str, int, type(None)), "timestep")
    if type(timestep) is int and not -(2**63) <= timestep < 2**64:
        deviations.add("integer range")
    need(type(step.get("state")) is str, "state")
    return {
        "timestep": str(index if timestep is None else timestep),
        "state": step["state"],
        "observations": read_texts(step.get("observations"), "observations", names),
        "actions": read_texts(step.get("actions"), "actions", names),
    }


def read_texts(value, place, names):
    if type(value) is list:
        texts = {}
        for item in value:
            need(type(item) is str and ":" in item, f"an item of {place}")
            agent, text = split_item(item, names)
            need(agent and agent not in texts, f"an agent of {place}")
            texts[agent] = text.strip()
        return texts
    used_object(value, place)
    need(all(type(text) is str for text in value.values()), f"a text of {place}")
    return dict(value)


def split_item(item, names):
    if any(":" in name for name in names):
        for name in sorted(filter(str.strip, names), key=len, reverse=True):
            rest = item.lstrip().removeprefix(name).lstrip()
            if item.lstrip().startswith(name) and rest.startswith(":"):
                return name, rest[1:]
    agent, text = item.split(":", 1)
    return agent.strip(), text


def read_story(value, deviations):
    if type(value) is str and opens_literal(value):
        value = read_literal(value, deviations)
    elif type(value) is str:
        value = [value]
    need(type(value) in (list, tuple) and value, "story")
    need(all(type(sentence) is str for sentence in value), "a sentence of the story")
    story = " ".join(value)
    need(story.strip(), "the story is blank")
    need(story.strip() not in MISSING, "a missing value")
    return story


MISSING = ["nan", "NaN", "None", "null", "<NA>", "NaT", "undefined"]


def opens_literal(text):
    """Whether a string or the closing bracket comes behind the brackets that a story begins with."""
    brackets = re.match(r"(?:\s*[\[(])*", text).group()
    inside = text[len(brackets) :].lstrip()
    if not brackets:
        return False
    return inside[:1] == {"[": "]", "(": ")"}[brackets[-1]] or re.match(
        r"""(?:[rubft]|br|rb|fr|rf|tr|rt|ur)?['"]""", inside, re.ASCII | re.IGNORECASE
    )


def read_literal(text, deviations):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise Rejected(f"literal: {error}") from None
    if type(value) in (list, tuple) and all(type(item) is str for item in value):
        if any(map(has_surrogate, value)):
            deviations.add("literal surrogate")
        if has_named_escape(text):
            deviations.add("named escape")
        if has_adjacent_strings(text):
            deviations.add("adjacent strings")
    return value


def has_adjacent_strings(literal):
    lines = io.StringIO(literal.lstrip(" \t"), newline=None)
    ignored = (tokenize.NL, tokenize.COMMENT)
    kinds = [token.type for token in tokenize.generate_tokens(lines.readline) if token.type not in ignored]
    return (tokenize.STRING, tokenize.STRING) in zip(kinds, kinds[1:])


def has_named_escape(literal):
    lines = io.StringIO(literal.lstrip(" \t"), newline=None)
    for token in tokenize.generate_tokens(lines.readline):
        if token.type == tokenize.STRING and token.string[0] not in "rR":
            if "N" in re.findall(r"\\(.)", token.string, re.DOTALL):
                return True
    return False


def verdict(data):
    """("accept", (story, context)), ("deviate", names) or ("reject", reason)."""
    try:
        story, context, deviations = judge_record(data)
    except Rejected as reason:
        return "reject", str(reason)
    if deviations:
        return "deviate", sorted(deviations)
    return "accept", (story, context)


def compare(directory, out):
    """Prints the differences between OUT and the oracle's verdicts; 0 if there is none."""
    labels = dict(line.split("\t") for line in read_lines(os.path.join(directory, "labels.tsv")))
    differences = []
    examples = read_examples(out, differences)
    rejects = read_rejects(out, differences)
    counts = collections.Counter()
    deviations = collections.Counter(dict.fromkeys(DEVIATIONS, 0))
    keys = sorted(os.listdir(os.path.join(directory, "corpus")))
    for key in keys:
        with open(os.path.join(directory, "corpus", key), "rb") as source:
            kind, detail = verdict(source.read())
        counts[kind] += 1
        if kind == "deviate":
            deviations.update(detail)
        for fault in faults_of(kind, detail, examples.get(key), key in rejects):
            differences.append(f"{key} ({labels.get(key, '?')}): {fault}")
    for key in sorted((set(examples) | set(rejects)) - set(keys)):
        differences.append(f"{key}: in OUT and not in the corpus")
    systems = {example[0] for example in examples.values() if example}
    if len(systems) > 1 or "" in systems:
        differences.append(f"{len(systems)} system messages")
    for difference in differences[:20]:
        print(difference)
    print(f"{len(keys)} records, {len(differences)} differences")
    for kind in ("accept", "reject", "deviate"):
        print(f"{counts[kind]:8} {kind}")
    for name, count in deviations.items():
        print(f"{count:12} {name}: {DEVIATIONS[name]}")
    return 1 if differences else 0


def faults_of(kind, detail, example, refused):
    if kind != "accept":
        if example is not None:
            yield f"converted, expected {kind}: {detail}"
        if not refused:
            yield f"not in rejects.jsonl, expected {kind}: {detail}"
        return
    if refused:
        yield "refused, expected an example"
    if example is None:
        yield "no example"
        return
    story, context = detail
    _, user, assistant = example
    expected = json.dumps(context, ensure_ascii=False)
    if user != USER_PREFIX + story:
        yield "user content " + first_difference(user, USER_PREFIX + story)
    if assistant != expected:
        yield "assistant content " + first_difference(assistant, expected)
    elif pairs_of(assistant) != pairs_of(expected):
        yield "assistant content parses to something else"


def first_difference(text, expected):
    same = len(os.path.commonprefix([text, expected]))
    near = slice(max(0, same - 30), same + 50)
    return f"at {same}: {ascii(text[near])}, expected {ascii(expected[near])}"


def pairs_of(text):
    return json.loads(text, object_pairs_hook=list)


def read_lines(path):
    """The lines of a UTF-8 file, cut at newlines and nowhere else; none if it is absent."""
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8", newline="\n") as lines:
        return lines.read().removesuffix("\n").split("\n")


def read_examples(out, differences):
    """Key -> (system, user, assistant), by way of keys.tsv."""
    header, *rows = read_lines(os.path.join(out, "keys.tsv")) or [""]
    if header != "split\tline\tshard\tkey":
        differences.append(f"keys.tsv begins with {header!r}")
    shards, examples = {}, {}
    for row in rows:
        split, line, shard, key = row.split("\t")
        key = json.loads(key)
        if shard not in shards:
            shards[shard] = read_lines(os.path.join(out, shard))[::-1]
        if key in examples:
            differences.append(f"{key}: twice in keys.tsv")
        if split not in ("train", "val") or not shard.startswith(split):
            differences.append(f"{key}: split {split} in shard {shard}")
        if not shards[shard]:
            differences.append(f"{key}: {shard} has no line {line}")
            continue
        examples[key] = read_example(shards[shard].pop(), key, differences)
    for line, shard in misnumbered(rows):
        differences.append(f"keys.tsv: line {line} of {shard} is out of order")
    for name in os.listdir(out):
        if name.endswith(".jsonl") and name != "rejects.jsonl" and shards.get(name) != []:
            differences.append(f"{name}: more lines than keys.tsv says")
    return examples


def misnumbered(rows):
    """The rows whose line number is not one more than that of the row before in their shard."""
    last = collections.Counter()
    for row in rows:
        _, line, shard, _ = row.split("\t", 3)
        last[shard] += 1
        if line != str(last[shard]):
            yield line, shard


def read_example(line, key, differences):
    example = json.loads(line)
    if json.dumps(example, ensure_ascii=False, separators=(",", ":")) != line:
        differences.append(f"{key}: not the compact JSON Python writes: {ascii(line[:200])}")
    contents = tuple(message["content"] for message in example["messages"])
    roles = ("system", "user", "assistant")
    messages = [{"role": role, "content": text} for role, text in zip(roles, contents)]
    if pairs_of(line) != pairs_of(json.dumps({"messages": messages})) or len(contents) != 3:
        differences.append(f"{key}: not three messages with role and content: {ascii(line[:200])}")
        return None
    return contents


def read_rejects(out, differences):
    rejects = {}
    for line in read_lines(os.path.join(out, "rejects.jsonl")):
        if not line:
            continue
        reject = json.loads(line)
        key = reject.get("key")
        if list(reject) != ["key", "code", "reason", "at"] or key in rejects:
            differences.append(f"rejects.jsonl: {line}")
        elif not (re.fullmatch("[a-z_]+", reject["code"]) and reject["reason"]):
            differences.append(f"rejects.jsonl: {line}")
        rejects[key] = reject
    return rejects

AGENTS = ["Mia", "Chloe", "Oliver", "Noah", "Zoë", "李雷", "נועה", "O'Neil", 'the "Cat"', "Ann B."]
PLACES = ["lounge", "crate", "study", "garden", "büro", "台所", "red box"]
VERBS = ["entered", "left", "moved the persimmon to", "searched", "saw", "thought of"]
ODD_TEXTS = [
    "\0", "\x01", "\x1c", "\x1f", "\x7f", "\x85", "\xa0", "\xad", "\u200b", "\u2028", "\u2029",
    "\u202eשלום\u202c", "مرحبا", "e\u0301", "\u0301", "Å", "\u212b", "ﬁ", "👩\u200d👩\u200d👧",
    "😀", "𝒳", "\U0010ffff", "\U000e0001", "\ufeff", "\ufffd", "\uffff", "\ue000", "\ud7ff",
    "<|eot_id|>", "<|im_start|>", "</s>", "<same_as_last_action />", "<b>&amp;</b>", "{story}",
    "{context}", "{question}{answer}", "{", "}}", '"', "'", "\\", "\\n", "\\u0041", "\\ud800",
    "/", "//", "\t", "\n", "\r\n", "\r", "\b\f\v", " ", "  ", ":", " : ", "[", "('a')", "#", "'''",
]


def any_character(rng):
    first, last = rng.choice([(0, 0x7F), (0x80, 0x7FF), (0x800, 0xD7FF), (0xE000, 0xFFFF), (0x10000, 0x10FFFF)])
    return chr(rng.randint(first, last))


def any_text(rng, plain=0.6):
    words = [rng.choice(AGENTS), rng.choice(VERBS), "the", rng.choice(PLACES) + "."]
    while rng.random() > plain:
        odd = rng.choice(ODD_TEXTS) if rng.random() < 0.7 else any_character(rng)
        words.insert(rng.randint(0, len(words)), odd)
    if rng.random() < 0.02:
        return rng.choice(["", " ", "none", rng.choice(ODD_TEXTS)])
    return rng.choice(["", " ", " "]).join(words) if rng.random() < 0.1 else " ".join(words)


class Pairs(list):
    """An object as a list of pairs, so that its order is ours and keys can repeat."""

    def put(self, key, value):
        self[:] = [(k, value if k == key else v) for k, v in self]

    def drop(self, key):
        self[:] = [(k, v) for k, v in self if k != key]

    def get(self, key):
        return dict(self)[key]


class Raw(str):
    """JSON text that is written as it is."""


class Name(Raw):
    """A key that is written as it is, with its quotes."""


class JsonStyle:
    """One record's way of writing JSON."""

    def __init__(self, rng):
        self.rng = rng
        self.indent = rng.choice(["", "compact", "pretty", "pretty", "random"])
        self.escaped = rng.choice([0, 0, 0.05, 0.5, 1])
        self.ascii = rng.random() < 0.4
        self.upper = rng.choice([0, 0, 0.5, 1])

    def write(self, value, level=0):
        if isinstance(value, Raw):
            return value
        if isinstance(value, str):
            return self.string(value)
        if isinstance(value, Pairs):
            items = [self.write(k) + self.colon() + self.write(v, level + 1) for k, v in value]
            return "{" + self.join(items, level) + "}"
        if isinstance(value, list):
            return "[" + self.join([self.write(item, level + 1) for item in value], level) + "]"
        return json.dumps(value)

    def join(self, items, level):
        if self.indent == "pretty" and items:
            line = "\n" + "  " * (level + 1)
            return line + f",{line}".join(items) + line[:-2]
        if self.indent == "random":
            items = [self.blank() + item + self.blank() for item in items] or [self.blank()]
        return (", " if self.indent == "" else ",").join(items)

    def colon(self):
        if self.indent == "random":
            return self.blank() + ":" + self.blank()
        return ":" if self.indent == "compact" else ": "

    def blank(self):
        return "".join(self.rng.choices(" \t\r\n", k=self.rng.choice([0, 0, 1, 2])))

    def string(self, text):
        return '"' + "".join(map(self.character, text)) + '"'

    def character(self, character):
        short = {'"': '"', "\\": "\\", "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t"}
        if character in short and self.rng.random() >= self.escaped * 0.5:
            return "\\" + short[character]
        if character == "/" and self.rng.random() < 0.3:
            return "\\/"
        forced = character in short or character < " " or (self.ascii and character > "\x7f")
        if not forced and self.rng.random() >= self.escaped * 0.2:
            return character
        units = character.encode("utf-16-be").hex()
        digits = "".join(d.upper() if self.rng.random() < self.upper else d for d in units)
        return "".join("\\u" + digits[at : at + 4] for at in range(0, len(digits), 4))


LITERAL_BLANKS = ["", "", "", " ", "\t", "\f", "\n", "\r\n", "\\\n", "# it's [ a comment\n", "\n  ", " # é\r"]
LITERAL_ESCAPES = {
    "\\": ["\\\\"], "'": ["\\'"], '"': ['\\"'], "\n": ["\\n", "\\12", "\\x0a"], "\t": ["\\t", "\t"],
    "\r": ["\\r"], "\a": ["\\a", "\\7"], "\b": ["\\b"], "\f": ["\\f", "\f"], "\v": ["\\v"],
}


def literal_blank(rng):
    return rng.choice(LITERAL_BLANKS) if rng.random() < 0.3 else ""


def literal_character(rng, character, following, quote):
    """One spelling of a character in a string that is not raw."""
    if character in LITERAL_ESCAPES:
        bare = character in "'\"" and character != quote[0]
        bare = bare or (character == "\n" and len(quote) == 3 and rng.random() < 0.5)
        escapes = [text for text in LITERAL_ESCAPES[character] if following not in "01234567" or not text[-1].isdigit()]
        return character if bare else rng.choice(escapes)
    code = ord(character)
    if character == "\0" or rng.random() < 0.05:
        spellings = [f"\\U{code:08x}"]
        spellings += [f"\\u{code:04X}"] * (code < 0x10000) + [f"\\x{code:02x}"] * (code < 0x100)
        spellings += [f"\\{code:o}"] * (code < 0o1000 and following not in "01234567")
        return rng.choice(spellings)
    return character


def literal_string(rng, text):
    """One spelling of one Python string."""
    quote = rng.choice(["'", "'", "'", '"', '"', "'''", '"""'])
    blocked = set(quote[0] + "\\\r\0") | (set() if len(quote) == 3 else {"\n"})
    if rng.random() < 0.1 and not blocked & set(text):
        return rng.choice("rR") + quote + text + quote
    body = ""
    for at, character in enumerate(text):
        following = text[at + 1 : at + 2] or "8"
        body += literal_character(rng, character, following, quote)
        if rng.random() < 0.005:
            body += "\\\n"
    return rng.choice(["", "", "", "u", "U"]) + quote + body + quote


def literal_item(rng, text):
    """One spelling of one item: a string, parentheses around it."""
    spelled = literal_string(rng, text)
    while rng.random() < 0.05:
        spelled = "(" + rng.choice(["", " "]) + spelled + literal_blank(rng) + ")"
    return spelled


def literal_list(rng, texts):
    """One spelling of a list or tuple of strings; most are Python's own."""
    if rng.random() < 0.3:
        return repr(rng.choice([list, tuple])(texts))
    opening, closing = rng.choice(["[]", "[]", "()"])
    # A comment or a backslash behind the bracket would make it prose.
    spelled = opening + rng.choice(["", "", "", " ", "\t", "\n", "\r\n "])
    for index, text in enumerate(texts):
        spelled += (rng.choice([",", ", "]) + literal_blank(rng)) * (index > 0)
        spelled += literal_item(rng, text) + literal_blank(rng)
    if rng.random() < 0.2 or (opening == "(" and len(texts) == 1):
        spelled += "," + literal_blank(rng)
    spelled += closing
    while rng.random() < 0.03:
        spelled = "(" + rng.choice(["", " "]) + spelled + literal_blank(rng) + ")"
    spelled = rng.choice(["", "", "", "", " ", "\t", "\n", "\f"]) + spelled
    return spelled + rng.choice(["", "", "", "", " ", "\n", " # the end", "\r\n\n# the end\n"])


def any_record(rng):
    names = rng.sample(AGENTS, rng.randint(1, 4))
    if rng.random() < 0.1:
        names[0] = any_text(rng, plain=0.3)
    if rng.random() < 0.1:
        names[-1] = rng.choice(["Dr: Who", names[0] + ": Jr", names[0] + ":", ": x", "Dr: Who: ", "a:b"])
    steps = [any_step(rng, names, index) for index in range(rng.choice([1, 1, 2, 3, 5]))]
    context = Pairs([("agents_names", names), ("socialized_context", steps)])
    if rng.random() < 0.5:
        context.append(("context_manual", rng.choice([any_text(rng), None])))
    record = Pairs(
        [
            ("story", any_story(rng)),
            ("question", any_text(rng)),
            ("reasoning", any_text(rng)),
            ("answer", any_text(rng)),
            ("correct_answer", rng.choice([any_text(rng), None, 3])),
            ("is_correct", rng.choice([True, True, False, None])),
            ("socialized_context", context),
            ("extra_info", any_value(rng)),
        ]
    )
    for key in ("reasoning", "correct_answer", "is_correct", "extra_info"):
        if rng.random() < 0.2:
            record.drop(key)
    for each in (record, context, *steps):
        if rng.random() < 0.2:
            each.append((f"extra {rng.randint(0, 9)}", any_value(rng)))
        if rng.random() < 0.3:
            rng.shuffle(each)
    return record


def any_story(rng):
    sentences = [any_text(rng) for _ in range(rng.choice([1, 1, 2, 5, 10]))]
    if not " ".join(sentences).strip():
        sentences.append("Mia left.")
    kind = rng.random()
    if kind < 0.6:
        return literal_list(rng, sentences)
    if kind < 0.8:
        return sentences
    prose = " ".join(sentences)
    return "So: " + prose if opens_literal(prose) or prose.strip() in MISSING else prose


def any_step(rng, names, index):
    timesteps = [str(index), str(index), index, None, any_text(rng), -1, -0, 2**63, 2**64 - 1, -(2**63)]
    step = Pairs([("timestep", rng.choice(timesteps)), ("state", any_text(rng))])
    step.append(("observations", any_texts(rng, names)))
    step.append(("actions", any_texts(rng, names)))
    if rng.random() < 0.1:
        step.drop("timestep")
    return step


def any_texts(rng, names):
    all_names = names
    names = list(dict.fromkeys(names + ["Bystander"] * (rng.random() < 0.05)))
    names = names[: rng.choice([9, 9, 9, 1, 0])]
    texts = Pairs((name, any_text(rng)) for name in names)
    if rng.random() < 0.4:
        items = [listed(rng, *pair) for pair in texts]
        agents = [split_item(item, all_names)[0] for item in items]
        if all(agents) and len(set(agents)) == len(agents):
            return items
    return texts


def listed(rng, agent, text):
    blank = ["", "", "", " ", "\t", "\xa0", "\u3000", "\x1f", "\n"]
    separator = rng.choice([": ", ": ", ":", " : "])
    return rng.choice(blank) + agent + separator + text + rng.choice(blank)


def any_value(rng, depth=0):
    kind = rng.random()
    if kind < 0.25 and depth < 4:
        return [any_value(rng, depth + 1) for _ in range(rng.randint(0, 3))]
    if kind < 0.5 and depth < 4:
        keys = ["a", "a", "b", "story", any_text(rng)]
        return Pairs((rng.choice(keys), any_value(rng, depth + 1)) for _ in range(rng.randint(0, 3)))
    if kind < 0.7:
        return any_text(rng)
    numbers = ["0", "-0", "1", "-17", "0.5", "-0.0", "1e5", "1E+16", "1e-400", "1.7976931348623157e308"]
    numbers += ["9223372036854775808", "18446744073709551615", "-9223372036854775808", "0.1e-7"]
    return Raw(rng.choice(numbers + ["true", "false", "null", "{}", "[]", '""']))

# name -> (function, what the oracle has to say: "accept", "reject", "deviate" or None)
RECORD_FAULTS, TEXT_FAULTS, BYTE_FAULTS = {}, {}, {}


def fault(table, name, outcome):
    def register(function):
        table[name] = (function, outcome)
        return function

    return register


def used_objects(record):
    """Every object whose keys count: root, context, steps, observations, actions."""
    context = record.get("socialized_context")
    steps = context.get("socialized_context")
    texts = [step.get(key) for step in steps for key in ("observations", "actions")]
    return [record, context, *steps, *(each for each in texts if isinstance(each, Pairs))]


def any_of_steps(rng, record):
    return rng.choice(record.get("socialized_context").get("socialized_context"))


def other_than(rng, *kinds):
    values = [None, True, 3, Raw("1.5"), "text", [], ["a"], Pairs(), Pairs([("a", "b")]), Raw("0")]
    return rng.choice([value for value in values if type(value) not in kinds])


@fault(RECORD_FAULTS, "wrong type at the top", "reject")
def wrong_top(rng, record):
    key = rng.choice(["question", "answer", "socialized_context"])
    kind = Pairs if key == "socialized_context" else str
    record.put(key, other_than(rng, kind))


@fault(RECORD_FAULTS, "wrong type in the context", "reject")
def wrong_context(rng, record):
    context = record.get("socialized_context")
    key = rng.choice(["agents_names", "socialized_context"])
    if rng.random() < 0.5:
        context.put(key, other_than(rng, list))
    else:
        items = context.get(key)
        items[rng.randrange(len(items))] = other_than(rng, str if key == "agents_names" else Pairs)


@fault(RECORD_FAULTS, "wrong type in a step", "reject")
def wrong_step(rng, record):
    step = any_of_steps(rng, record)
    key = rng.choice(["state", "observations", "actions"])
    step.put(key, other_than(rng, str) if key == "state" else other_than(rng, list, Pairs))


@fault(RECORD_FAULTS, "wrong type of a text", "reject")
def wrong_text(rng, record):
    value = other_than(rng, str)
    texts = rng.choice([Pairs([("Mia", "none"), ("Noah", value)]), ["Mia: none", value]])
    any_of_steps(rng, record).put(rng.choice(["observations", "actions"]), texts)


@fault(RECORD_FAULTS, "wrong type of timestep", "reject")
def wrong_timestep(rng, record):
    step = any_of_steps(rng, record)
    step.drop("timestep")
    step.append(("timestep", rng.choice([Raw("1.0"), Raw("1e3"), True, False, [], ["0"], Pairs()])))


@fault(RECORD_FAULTS, "wrong type of is_correct", "reject")
def wrong_is_correct(rng, record):
    record.drop("is_correct")
    record.append(("is_correct", rng.choice(["yes", "true", "", 1, 0, Raw("1.0"), [], Pairs()])))


@fault(RECORD_FAULTS, "wrong type of story", "reject")
def wrong_story(rng, record):
    values = [None, True, 3, [], [3], ["a", None], [["a"]], Pairs(), [Pairs()], Pairs([("a", "b")])]
    record.put("story", rng.choice(values))


@fault(RECORD_FAULTS, "blank story", "reject")
def blank_story(rng, record):
    values = ["", " ", "\n\t", "\x1c\x1f", "\xa0\u3000", "['']", "['', ' ']", "('\\n',)", [""], [" ", "\u2003"]]
    record.put("story", rng.choice(values))


@fault(RECORD_FAULTS, "missing key", "reject")
def missing_key(rng, record):
    context = record.get("socialized_context")
    step = any_of_steps(rng, record)
    holder, keys = rng.choice(
        [
            (record, ["story", "question", "answer", "socialized_context"]),
            (context, ["agents_names", "socialized_context"]),
            (step, ["state", "observations", "actions"]),
        ]
    )
    holder.drop(rng.choice(keys))


@fault(RECORD_FAULTS, "no agents or no steps", "reject")
def none_at_all(rng, record):
    record.get("socialized_context").put(rng.choice(["agents_names", "socialized_context"]), [])


@fault(RECORD_FAULTS, "duplicate key in a used object", "reject")
def duplicate_key(rng, record):
    holder = rng.choice([each for each in used_objects(record) if each])
    key, value = rng.choice(holder)
    holder.insert(rng.randint(0, len(holder)), (key, rng.choice([value, "again"])))


@fault(RECORD_FAULTS, "duplicate key in an unused object", "accept")
def harmless_duplicate(rng, record):
    record.append(("more", [Pairs([("a", 1), ("a", 2), ("a", Pairs([("b", None)] * 2))])]))


@fault(RECORD_FAULTS, "bad list item", "reject")
def bad_item(rng, record):
    items = ["none", "", ": none", " \t: none", ":", "\x1f:x", "Mia ：none"]
    items = ["Mia: none", rng.choice(items)]
    any_of_steps(rng, record).put(rng.choice(["observations", "actions"]), items)


@fault(RECORD_FAULTS, "repeated agent in a list", "reject")
def repeated_agent(rng, record):
    items = ["Mia: none", rng.choice(["Mia: left", " Mia :", "Mia\u2003:x", "\x1eMia\x1c: y"]), "Noah: none"]
    any_of_steps(rng, record).put(rng.choice(["observations", "actions"]), items)


@fault(RECORD_FAULTS, "many agents", "accept")
def many_agents(rng, record):
    texts = Pairs((f"agent {index}", "none") for index in range(40))
    any_of_steps(rng, record).put("actions", texts)


@fault(RECORD_FAULTS, "one of many agents repeats", "reject")
def many_agents_repeat(rng, record):
    texts = [f"agent {index % 39}: none" for index in range(40)]
    any_of_steps(rng, record).put("observations", texts)


@fault(RECORD_FAULTS, "lone surrogate", "deviate")
def lone_surrogate(rng, record):
    escapes = ["\\ud800", "\\uDFFF", "\\ud83d\\ud83d\\ude00", "\\ude00\\ud83d", "\\ud83d \\ude00"]
    escapes += ["\\ud83d\\\\ude00", "\\uD83D\\n", "\\udbff\\u0041", "\\ud83dx"]
    text = Raw('"Mia' + rng.choice(escapes) + ' left."')
    place = rng.choice(["story", "question", "key", "agent", "state"])
    if place in ("story", "question"):
        record.put(place, text)
    elif place == "agent":
        record.get("socialized_context").get("agents_names")[0] = text
    elif place == "state":
        any_of_steps(rng, record).put("state", text)
    else:
        record.append(("unused", Raw('{"\\udc00": 1}')))


BIG_INTEGERS = ["18446744073709551616", "-9223372036854775809", "1" + "0" * 30, "9" * 5000]
BIG_FLOATS = ["1e400", "-1e400", "1e309", "1.8e308", "123456789e99999", "1" + "0" * 400 + ".0", "-0.0E+999"]
NOT_FINITE = ["NaN", "Infinity", "-Infinity"]
HALVES = ['"\\ud800"', '"x\\uDFFF"', '"\\ud83d\\ud83d\\ude00"', '"\\ude00\\ud83d"', '"\\ud83d\\\\ude00"', '"\\n\\udbff\\u0041 é"']


@fault(RECORD_FAULTS, "number out of range", "deviate")
def out_of_range(rng, record):
    step = any_of_steps(rng, record)
    step.drop("timestep")
    step.append(("timestep", Raw(rng.choice(BIG_INTEGERS))))


@fault(RECORD_FAULTS, "not JSON where nobody uses it", "accept")
def odd_and_unused(rng, record):
    context = record.get("socialized_context")
    for _ in range(rng.choice([1, 1, 2, 4])):
        holder = rng.choice([record, record, record, context, context, any_of_steps(rng, record)])
        used = ["timestep", "state", "observations", "actions", "agents_names", "socialized_context"]
        used = {id(record): [], id(context): used[:4] + ["story"]}.get(id(holder), used[4:] + ["story"])
        key = rng.choice(["logprobs", "context_manual", "x\ty", "é", any_text(rng), *used])
        if key not in dict(holder):
            holder.insert(rng.randint(0, len(holder)), (key, odd_value(rng)))


def odd_value(rng, depth=0):
    """What only Python reads, and how it can lie among other values."""
    kind = rng.random()
    if kind < 0.2 and depth < 40:
        return [odd_value(rng, depth + 1) for _ in range(rng.randint(1, 3))] + [any_value(rng)]
    if kind < 0.4 and depth < 40:
        keys = ["state", "story", "story", "socialized_context", any_text(rng)]
        return Pairs((rng.choice(keys), odd_value(rng, depth + 1)) for _ in range(rng.randint(1, 3)))
    return Raw(rng.choice(rng.choice([NOT_FINITE, NOT_FINITE, HALVES, BIG_INTEGERS, BIG_FLOATS])))


@fault(RECORD_FAULTS, "not JSON where it is used", None)
def odd_and_used(rng, record):
    context, step = record.get("socialized_context"), any_of_steps(rng, record)
    value = odd_value(rng) if rng.random() < 0.3 else Raw(rng.choice(NOT_FINITE + BIG_FLOATS))
    if value in HALVES + BIG_INTEGERS:
        value = [value, 1]
    holder, key = rng.choice(
        [(record, key) for key in ("story", "question", "answer", "is_correct", "socialized_context")]
        + [(context, key) for key in ("agents_names", "socialized_context")]
        + [(step, key) for key in ("timestep", "state", "observations", "actions")]
    )
    holder.drop(key)
    if rng.random() < 0.2:
        # The same name, written with an escape.
        key = Name(f'"{key[0]}\\u{ord(key[1]):04x}{key[2:]}"')
    holder.insert(rng.randint(0, len(holder)), (key, value))


@fault(RECORD_FAULTS, "extreme number", "accept")
def extreme_number(rng, record):
    numbers = ["1e-400", "-1e-999", "1e16", "123456789012345678.0", "0." + "0" * 400 + "1"]
    numbers += ["1.7976931348623157e308", "0e999", "4.9e-324", "2.4e-324", "18446744073709551615"]
    numbers += ["0." + "3" * 800, "1" * 200 + "e-190", "-9223372036854775808", "1E+000005"]
    record.append(("unused", Raw(rng.choice(numbers))))


@fault(RECORD_FAULTS, "deep nesting", "accept")
def deep_nesting(rng, record):
    record.append(("unused", nested(rng, rng.choice([100, 900, MAX_DEPTH - 1]))))


@fault(RECORD_FAULTS, "deeper nesting", "deviate")
def deeper_nesting(rng, record):
    record.append(("unused", nested(rng, rng.choice([MAX_DEPTH, 2000]))))


def nested(rng, levels):
    opening, closing = rng.choice([("[", "]"), ('{"a":', "}"), ('[0,"]",', "]")])
    return Raw(opening * levels + '""' + closing * levels)


BAD_LITERALS = [
    "[]", "()", "('a')", "['a'", "['a',", "['a'] 'b'", "['a'];", "['a'], 'b'", "['a'] + ['b']",
    "[f'a']", "[b'a']", "['a', b'b']", "[F'a']", "[rb'a']", "[ur'a']", "[t'a']", "['a', 1]",
    "['a', ['b']]", "[('a',)]", "(['a'],)", "[()]", "['a': 'b']",
    "['a' if 1 else 'b']", "['a'[0]]", "['a'.upper()]", "['a' % 1]", "['a' 'b' b'c']", "['a',,]", "['a'\xa0]", "\xa0['a']",
    "\n  ['a']", "['a']\n  ", "['a'\0]", "['a\nb']", "['a\rb']", "['\\x4']", "['\\u12']", "['\\U00110000']",
    "['a'\\ \n]", "['a']\\", "['It's here.']", "['a]", "['''a'']",
    "['a'))", "(['a')]", "['a']]", "[('a') 'b']", "['a' ('b')]", "['a' and 'b']",
    "[r'\\']", "['\\N']", "['\\N{no such name}']", "['a'\u2028]", "\x1c['a']",
    "[" * 201 + "]" * 201, "(" * 201 + "'a'," + ")" * 201,
]

# Brackets behind which neither a string nor the closing bracket comes.
BRACKETED_PROSE = [
    "(", "[", "[1]", "[None]", "[*['a']]", "[{'a'}]", "[{}]", "[-'a']", "[__import__('os').getcwd()]", "[,]", "[...]",
    "[open('/etc/passwd').read()]", "[x for x in 'a']", "(Mia left.)", "[Mia left.] Chloe ran.", "[‘a’]", "[lambda: 'a']",
    "[yield]", "[True]", "[I'm here.]", "[\\\n'a']", "[# a\n'b']", " \u3000[Scene 1]", "[" * 100_000, "(" * 100_000,
]


@fault(RECORD_FAULTS, "bad literal", "reject")
def bad_literal(rng, record):
    record.put("story", rng.choice(BAD_LITERALS))


@fault(RECORD_FAULTS, "prose in brackets", "accept")
def bracketed_prose(rng, record):
    record.put("story", rng.choice(BRACKETED_PROSE))


@fault(RECORD_FAULTS, "missing value as a story", "reject")
def missing_story(rng, record):
    word = rng.choice(MISSING)
    record.put("story", rng.choice([word, f" {word}\n", [word], repr([word])]))


@fault(RECORD_FAULTS, "strings side by side", "deviate")
def adjacent_strings(rng, record):
    literals = ["['Mia left.' 'Noah ran.']", "['Mia left.'\n 'Noah ran.']", "('a', 'b' # c\n \"d\")", "['a'r'b', 'c']"]
    record.put("story", rng.choice(literals + [str(["a\n", "b", "it's"]).replace(", ", " ")]))


@fault(RECORD_FAULTS, "rare literal", "accept")
def rare_literal(rng, record):
    literals = ["(" * 200 + "'a'," + ")" * 200, "('a'), 'b'", "('a'),", "['a']\n  \n # x", "['a\\\r\nb']"]
    literals += ["['''a\r\nb\rc''']", "[r'\\'\\N{x}']", "['\\d\\é\\400']", "['a'\\\n]\\\n\n", "['a' # \xa0\r\n]"]
    record.put("story", rng.choice(literals))


@fault(RECORD_FAULTS, "literal beyond text", "deviate")
def literal_beyond_text(rng, record):
    literals = ["['\\ud800']", "['\\ud83d\\ude00']", "['a', 'b\\U0000DFFF']", "['\\N{EN DASH}']"]
    record.put("story", rng.choice(literals + ["['a', '\\N{BULLET}']", "[r'\\N', '\\N{BULLET}']"]))


@fault(RECORD_FAULTS, "mutated literal", None)
def mutated_literal(rng, record):
    text = literal_list(rng, [any_text(rng) for _ in range(rng.randint(1, 4))])
    pieces = list("[](),'\"\\\n\r \t#urbN{}x08") + ["'''", '"""', "\0", "\u2028", "\\ud8", "\xa0"]
    record.put("story", mutated(rng, text, pieces))


def mutated(rng, text, pieces):
    """The text with one to three places cut, filled or replaced."""
    for _ in range(rng.choice([1, 1, 2, 3])):
        at = rng.randint(0, len(text))
        width = rng.choice([0, 1, 1, rng.randint(0, 30)])
        text = text[:at] + rng.choice([text[:0], rng.choice(pieces)]) + text[at + width :]
    return text


@fault(TEXT_FAULTS, "mutated JSON", None)
def mutated_json(rng, text):
    pieces = list('{}[]",:\\/u09.eE+- \t\n\r\x0bnullé\0\x7f') + ["\\u", "\\ud83d", "\ufeff", "'", "NaN", "//x\n"]
    return mutated(rng, text, pieces)


@fault(TEXT_FAULTS, "truncated", None)
def truncated(rng, text):
    return text[: rng.randrange(len(text))]


@fault(TEXT_FAULTS, "trailing garbage", "reject")
def trailing_garbage(rng, text):
    return text + rng.choice(["x", "{}", "\0", ",", "]", "}", "\x0b", "\xa0", "\ufeff", "null", "//", "\n#", '"'])


@fault(TEXT_FAULTS, "leading garbage", "reject")
def leading_garbage(rng, text):
    return rng.choice(["x", ",", "\0", "\ufeff\ufeff", " \ufeff", "\x0b", "\f", "[", "null ", "\u2028"]) + text


@fault(TEXT_FAULTS, "not JSON's value", "reject")
def not_jsons(rng, text):
    values = ["nan", "-NaN", "NaN1", "+Infinity", "Infinity.0", "Inf", "01", "-01", "1.", ".5", "+1", "-", "1e", "1e+", "0x1", "True", "None"]
    values += ["nul", "'a'", "undefined", '"\\x41"', '"\\u12"', '"\\u12G4"', '"\\"', '"\\', "[1,]", '{"a":1,}', "{,}"]
    values += ['"\n"', '"\t"', '"\0"', '"\x1f"', '{"a"}', '{1:2}', "[1 2]", "tru", "1_000", "[", "]", "{]", "/**/", ""]
    values += ['"\\ud800', '"\\ud800\n"', '"\\ud800\\x"', '"\\ud80g"', "1e400.5", "-", "NaN NaN"]
    values += ["00", "-00", "0e", "1.e5", "1.5.5", "--1", "١", '"\\U0001F600"', '"\\u+123"', '"\\u 123"', "truE", "nulll"]
    return text.rstrip()[:-1] + ', "unused": ' + rng.choice(values) + "}"


@fault(TEXT_FAULTS, "another root", "reject")
def another_root(rng, text):
    return rng.choice(["[" + text + "]", "null", "3", '"text"', "[]", "{}", "true", "", " \n", "\ufeff", "<!doctype html>"])


@fault(BYTE_FAULTS, "byte order mark", "accept")
def byte_order_mark(_rng, data):
    return b"\xef\xbb\xbf" + data


@fault(BYTE_FAULTS, "blanks around", "accept")
def blanks_around(rng, data):
    return rng.choice([b" ", b"\n\n", b"\r\n\t"]) + data + rng.choice([b" ", b"\n", b"\r\n", b"\n" * 100])


@fault(BYTE_FAULTS, "UTF-16 or UTF-32", "reject")
def wide_encoding(rng, data):
    return data.decode().encode(rng.choice(["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"]))


@fault(BYTE_FAULTS, "invalid UTF-8", "reject")
def invalid_utf8(rng, data):
    bad = [b"\x80", b"\xff", b"\xfe", b"\xc0\x80", b"\xc1\xbf", b"\xe0\x80\xaf", b"\xed\xa0\x80", b"\xed\xb0\x80"]
    bad += [b"\xf0\x80\x80\xaf", b"\xf4\x90\x80\x80", b"\xf8\x88\x80\x80\x80", b"\xe2\x82", b"\xf0\x9f\x98", b"\xe9"]
    at = data.index(b'"') + 1
    return data[:at] + rng.choice(bad) + data[at:]


@fault(BYTE_FAULTS, "mutated bytes", None)
def mutated_bytes(rng, data):
    return mutated(rng, data, [bytes([rng.randrange(256)]) for _ in range(3)])


@fault(BYTE_FAULTS, "empty, NULs or gzip", "reject")
def nothing(rng, _data):
    return rng.choice([b"", b"\0", b"\0" * 100, b"\xef\xbb\xbf", b"\x1f\x8b\x08\0\0\0\0\0", b"\n"])


def any_file(rng, only):
    """(label, outcome the oracle must agree with or None, bytes) of one corpus file; `only` names faults
    one of which each record is to have."""
    record = any_record(rng)
    style = JsonStyle(rng)
    label, outcome, function, table = "valid", "accept", None, None
    if only:
        table, label = RECORD_FAULTS, rng.choice(only)
        function, outcome = table[label]
    elif rng.random() < 0.36:
        table = rng.choices([RECORD_FAULTS, TEXT_FAULTS, BYTE_FAULTS], weights=[6, 2, 2])[0]
        label = rng.choice(list(table))
        function, outcome = table[label]
    if table is RECORD_FAULTS:
        function(rng, record)
    text = style.write(record)
    if table is TEXT_FAULTS:
        text = function(rng, text)
    data = text.encode()
    if table is BYTE_FAULTS:
        data = function(rng, data)
    elif table is None and rng.random() < 0.05:
        data = b"\xef\xbb\xbf" + data
    return label, outcome, data


def generate(directory, records, seed, only):
    """Writes the corpus and its labels; 1 if the oracle does not see what was done to a file."""
    corpus = os.path.join(directory, "corpus")
    os.makedirs(corpus, exist_ok=True)
    counts = collections.defaultdict(collections.Counter)
    surprises = 0
    with open(os.path.join(directory, "labels.tsv"), "w", encoding="utf-8") as labels:
        for index in range(records):
            label, outcome, data = any_file(random.Random(f"{seed}:{index}"), only)
            key = f"{index:05}.json"
            with open(os.path.join(corpus, key), "wb") as out:
                out.write(data)
            labels.write(f"{key}\t{label}\n")
            kind, detail = verdict(data)
            counts[label][kind] += 1
            if outcome not in (None, kind):
                surprises += 1
                print(f"{key}: {label}: the oracle says {kind}: {ascii(detail)[:200]}")
    print(f"{'accept':>8}{'deviate':>8}{'reject':>8}")
    counts["total"] = sum(counts.values(), collections.Counter())
    for label, kinds in sorted(counts.items(), key=lambda item: sum(item[1].values())):
        print("".join(f"{kinds[kind]:8}" for kind in ("accept", "deviate", "reject")), label)
    return 1 if surprises else 0


def judge(paths):
    for path in paths:
        with open(path, "rb") as source:
            kind, detail = verdict(source.read())
        print(path, kind, ascii(detail), sep="\t")
    return 0


def main():
    # Integers of any length, and brackets as deep as the corpus has them.
    sys.set_int_max_str_digits(0)
    sys.setrecursionlimit(20_000)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("generate", help="write a random corpus")
    command.add_argument("directory", metavar="DIR")
    command.add_argument("--records", type=int, default=10_000, metavar="N")
    command.add_argument("--seed", type=int, default=7)
    command.add_argument("--only", action="append", default=[], choices=RECORD_FAULTS, metavar="LABEL")
    command.set_defaults(run=lambda a: generate(a.directory, a.records, a.seed, a.only))
    command = commands.add_parser("compare", help="hold OUT against the oracle")
    command.add_argument("directory", metavar="DIR")
    command.add_argument("out", metavar="OUT")
    command.set_defaults(run=lambda a: compare(a.directory, a.out))
    command = commands.add_parser("judge", help="print the oracle's verdict on files")
    command.add_argument("paths", nargs="+", metavar="FILE")
    command.set_defaults(run=lambda a: judge(a.paths))
    arguments = parser.parse_args()
    return arguments.run(arguments)


if __name__ == "__main__":
    sys.exit(main())
