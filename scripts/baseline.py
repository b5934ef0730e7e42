#!/usr/bin/env python3
"""What `ctxtune prepare` does by default, in Python's standard library alone.

    baseline.py DIR OUT

Lists every *.json below DIR, sorts by rank (seed 42), reads the files one by one,
turns each record into a line of the built-in chat template and writes OUT/train.jsonl
and OUT/val.jsonl (ratio 0.1). One process, nothing held but the names. It is here to be
measured against by `bench.sh`, so it leaves out what costs time and is not the work itself:
no rejects (a bad record ends the run), no leakage, no manifest, no fsync. On a corpus without
bad records its two files are, byte for byte, those of `ctxtune prepare`.
"""

import ast
import hashlib
import json
import os
import sys

SEED = 42
SYSTEM = (
    "You are dissecting the TOMI scenarios. The assumptions are these: a character perceives every "
    "scene that takes place where the character is, and no scene that takes place elsewhere; a "
    "character who leaves a place perceives nothing of it from then on. When an agent is in the same "
    "place as an object, the agent's observation tells where the object is. Write the socialized "
    "context of the story as JSON: the agents' names, then for each timestep the state of the world, "
    "what each agent observes and what each agent does."
)
USER = "Generate a detailed socialized context for the following story:\n\n"
STEP_KEYS = ("timestep", "state", "observations", "actions")


def keys_by_rank(directory):
    ranked = []
    pending = [("", directory)]
    while pending:
        prefix, path = pending.pop()
        with os.scandir(path) as entries:
            for entry in entries:
                key = prefix + entry.name
                if entry.is_dir(follow_symlinks=False):
                    pending.append((key + "/", entry.path))
                elif key.endswith(".json"):
                    key = os.fsencode(key)
                    rank = hashlib.sha256(b"%d:%b" % (SEED, key)).digest()[:16]
                    ranked.append((rank, key))
    ranked.sort()
    return [key for _, key in ranked]


def story_text(story):
    if isinstance(story, str):
        if story.lstrip()[:1] not in ("[", "("):
            return story
        story = ast.literal_eval(story)
    return " ".join(story)


def line(record):
    context = record["socialized_context"]
    steps = [{key: step[key] for key in STEP_KEYS} for step in context["socialized_context"]]
    learnt = {"agents_names": context["agents_names"], "socialized_context": steps}
    messages = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": USER + story_text(record["story"])},
        {"role": "assistant", "content": json.dumps(learnt, ensure_ascii=False)},
    ]
    text = json.dumps({"messages": messages}, ensure_ascii=False, separators=(",", ":"))
    return text.encode() + b"\n"


def write(path, directory, keys):
    with open(path, "wb") as lines:
        for key in keys:
            with open(os.path.join(directory, key), "rb") as source:
                lines.write(line(json.loads(source.read())))


def main():
    if len(sys.argv) != 3:
        sys.exit("usage: baseline.py DIR OUT")
    directory, out = (os.fsencode(argument) for argument in sys.argv[1:])
    os.makedirs(out, exist_ok=True)
    keys = keys_by_rank(os.fsdecode(directory))
    train = len(keys) * 9 // 10
    write(os.path.join(out, b"train.jsonl"), directory, keys[:train])
    write(os.path.join(out, b"val.jsonl"), directory, reversed(keys[train:]))


if __name__ == "__main__":
    main()
