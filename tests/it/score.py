#!/usr/bin/env python3
"""An oracle for `ctxtune score` that shares no code with it.

    score.py generate DIR --records 2000 --seed 7
    ctxtune score DIR/gold DIR/a DIR/b --json > DIR/document.json
    score.py compare DIR

`generate` writes random records to DIR/gold, and answers of two models to DIR/a and DIR/b: as
they were, changed, in the other form, damaged, refused, missing. `compare` computes every score
from its definition, the intervals included, and exits 1 at the first differences.

Standard library only.
"""

import argparse
import collections
import hashlib
import json
import pathlib
import random
import re
import sys

NAMES = ["Mia", "Chloe", "Zoë", "Dr. Ito", "Ann", "Anna"]
WORDS = ["box", "the", "Box", "red", "café", "盒子", "walks", "Œuvre", "don't", "none", "3", "a_b", "...", "Ω"]
TAGS = [
    "<same_as_state />",
    "<same_as_state/>",
    "<same_as_last_action />",
    "<same_as_last_action_0 />",
    "<same_as_last_action_1 />",
    "<same_as_last_action_7 />",
    "<same_as_last_action_x />",
    "<same_as_next_state />",
    "[SAME AS STATE]",
    "[SAME AS LAST ACTION]",
    "[SAME AS LAST ACTION 1]",
    "[SAME AS LAST ACTION 99999999999999999999999999]",
    "<mental_state>box</mental_state>",
    "< [",
]
NONES = ["none", "None", " none ", ""]
MEASURES = (
    "overall structural json shape agents_in_steps timesteps same_agents same_steps state_exact state_f1 "
    "observations_exact observations_f1 actions_exact actions_f1"
).split()


# What is generated.


def text(rng, tags):
    if rng.random() < 0.35:
        return rng.choice(NONES[:2] if rng.random() < 0.8 else NONES)
    pool = WORDS + TAGS * 2 if tags else WORDS
    return rng.choice(["", " "]) + " ".join(rng.choice(pool) for _ in range(rng.randint(1, 6)))


def context(rng):
    names = rng.sample(NAMES, rng.randint(1, 3))
    steps = []
    for index in range(rng.randint(1, 5)):
        step = {
            "timestep": str(index),
            "state": text(rng, rng.random() < 0.2),
            "observations": {name: text(rng, True) for name in names},
            "actions": {name: rng.choice([name + " ", ""]) + text(rng, rng.random() < 0.1) for name in names},
        }
        steps.append(step)
    return {"agents_names": names, "socialized_context": steps}


def as_list(pairs):
    return [f"{name}: {said}" for name, said in pairs.items()]


def change(rng, value):
    """Changes a context, which stays usable."""
    value = json.loads(json.dumps(value))
    steps = value["socialized_context"]
    for step in steps:
        for key in ("observations", "actions"):
            for name in list(step[key]):
                if rng.random() < 0.2:
                    step[key][name] = text(rng, key == "observations")
                if rng.random() < 0.03:
                    del step[key][name]
            if rng.random() < 0.05:
                step[key][rng.choice(NAMES)] = text(rng, False)
            if rng.random() < 0.5:
                step[key] = dict(rng.sample(sorted(step[key].items()), len(step[key])))
        if rng.random() < 0.2:
            step["state"] = text(rng, True)
    if rng.random() < 0.2:
        rng.choice(steps)["timestep"] = rng.choice([None, "later", "1.0", 3, -1, " 2 ", "+1"])
    if rng.random() < 0.1:
        del rng.choice(steps)["timestep"]
    if rng.random() < 0.1:
        for index, step in enumerate(steps):
            step["timestep"] = index + rng.choice([1, 2])
    if rng.random() < 0.1:
        steps.append(context(rng)["socialized_context"][0])
    if rng.random() < 0.1 and len(steps) > 1:
        steps.pop(rng.randrange(len(steps)))
    if rng.random() < 0.1:
        value["agents_names"].append(rng.choice(NAMES))
    rng.shuffle(value["agents_names"])
    if rng.random() < 0.3:
        for step in steps:
            for key in ("observations", "actions"):
                step[key] = as_list(step[key])
    return value


def damage(rng, value):
    """Text that holds no usable context."""
    value = json.loads(json.dumps(value))
    steps = value["socialized_context"]
    kind = rng.randrange(7)
    if kind == 0:
        return json.dumps(value)[:-2]
    if kind == 1:
        steps[0]["state"] = 3
    elif kind == 2:
        del steps[-1]["actions"]
    elif kind == 3:
        steps.clear()
    elif kind == 4:
        steps[0]["observations"] = ["Mia: a", "Mia : b"]
    elif kind == 5:
        steps[0]["actions"] = ["nobody"]
    else:
        value["agents_names"] = "Mia"
    return json.dumps(record(value))


def record(value):
    return {"story": "s", "question": "q", "answer": "a", "socialized_context": value}


def generate(directory, count, seed):
    rng = random.Random(seed)
    for side in ("gold", "a", "b"):
        (directory / side).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        gold = context(rng)
        if rng.random() < 0.02:
            (directory / "gold" / f"{number}.json").write_text(damage(rng, gold), "utf-8")
            continue
        (directory / "gold" / f"{number}.json").write_text(json.dumps(record(gold)), "utf-8")
        for side in ("a", "b"):
            answer(rng, directory / side, number, gold)
    (directory / "a" / "extra.json").write_text("{}", "utf-8")


def answer(rng, directory, number, gold):
    path, refused = directory / f"{number}.json", directory / f"{number}.invalid.json"
    fate = rng.random()
    if fate < 0.1:
        return
    if fate < 0.15:
        refused.write_text(json.dumps({"reason": "cut short"}), "utf-8")
    elif fate < 0.25:
        path.write_text(damage(rng, change(rng, gold) if fate < 0.2 else gold), "utf-8")
    else:
        value = gold if fate < 0.4 else change(rng, gold)
        value = value if fate < 0.5 else record(value)
        path.write_text(json.dumps(value, ensure_ascii=fate < 0.7), "utf-8")
        if fate > 0.97:
            refused.write_text("{}", "utf-8")


# What is expected.


class Unusable(Exception):
    """No context."""


def need(condition):
    if not condition:
        raise Unusable


def pairs(value):
    if isinstance(value, list):
        need(all(isinstance(item, str) and ":" in item for item in value))
        items = [tuple(part.strip() for part in item.split(":", 1)) for item in value]
        need(len({name for name, _ in items}) == len(items))
        value = dict(items)
    need(isinstance(value, dict) and all(isinstance(said, str) for said in value.values()))
    return value


def read(path):
    """(context or None, whether it is JSON)."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except ValueError:
        return None, False
    try:
        value = value if "agents_names" in value else value["socialized_context"]
        need(isinstance(value["agents_names"], list) and value["agents_names"] and value["socialized_context"])
        for step in value["socialized_context"]:
            need(isinstance(step["state"], str))
            step["observations"], step["actions"] = pairs(step["observations"]), pairs(step["actions"])
    except (Unusable, KeyError):
        return None, True
    return value, True


def is_none(said):
    return said.strip().lower() == "none"


TAG = re.compile(
    r"<same_as_(state|last_action)(?:_([0-9]+))? */>|\[SAME AS (STATE|LAST ACTION)(?: ([0-9]+))?\]"
)


def resolve(value):
    """(names, [(state, observations, actions)], unresolved tags)."""
    unresolved = 0
    steps = []
    last = {}

    def told(name):
        said = last.get(name, "none").strip()
        if not said or is_none(said):
            return None
        begins = said.startswith(name) and not said[len(name) :][:1].isalnum()
        return said if begins else f"{name} {said}"

    def replaced(said, state):
        def one(match):
            kind = (match[1] or match[3]).lower().replace(" ", "_")
            index = match[2] or match[4]
            if kind == "state":
                meant = state if index is None else None
            elif index is None:
                meant = " ".join(filter(None, map(told, sorted(last)))) or None
            else:
                names = value["agents_names"]
                meant = told(names[int(index)]) if int(index) < len(names) else None
            # A mark that no text holds, so that what is inserted is not counted.
            return match[0] if meant is None else f"\0{meant}\1"

        nonlocal unresolved
        said = TAG.sub(one, said)
        outside = re.sub("\0[^\1]*\1", "", said)
        unresolved += outside.count("<same_as_") + outside.count("[SAME AS ")
        return said.replace("\0", "").replace("\1", "").strip()

    for step in value["socialized_context"]:
        state = replaced(step["state"], None)
        observations = {name: replaced(said, state) for name, said in step["observations"].items()}
        last = {name: said.strip() for name, said in step["actions"].items()}
        steps.append((state, observations, last))
    return value["agents_names"], steps, unresolved


def agreement(left, right):
    """(exact, F1) of two texts, or of a text and None."""
    if left is None or right is None or is_none(left) != is_none(right):
        return 0.0, 0.0
    if is_none(left) or left == right:
        return 1.0, 1.0
    left, right = (collections.Counter(map(str.lower, re.findall(r"\w+", said))) for said in (left, right))
    words = left.total() + right.total()
    return 0.0, 2 * (left & right).total() / words if words else 1.0


def mean(values):
    return sum(values) / len(values) if values else 1.0


def agreements(gold, generated):
    """The agreements of states, observations, actions."""
    length = max(len(gold), len(generated))
    nothing = (None, {}, {})
    sides = [(steps + [nothing] * length)[:length] for steps in (gold, generated)]
    states, observations, actions = [], [], []
    for (state, observed, acted), (other, other_observed, other_acted) in zip(*sides):
        states.append(agreement(state, other))
        for found, left, right in ((observations, observed, other_observed), (actions, acted, other_acted)):
            found.extend(agreement(left.get(name), right.get(name)) for name in sorted(left.keys() | right.keys()))
    return states, observations, actions


def timesteps(steps):
    try:
        numbers = [int(step.get("timestep") if step.get("timestep") is not None else 0) for step in steps]
    except ValueError:
        return 1 / 3 if all(step.get("timestep") is not None for step in steps) else 0.0
    if numbers in (list(range(len(steps))), list(range(1, len(steps) + 1))):
        return 1.0
    return 0.5 if numbers == sorted(numbers) else 0.0


def scores(gold, path, refused):
    """(status, scores, unresolved tags)."""
    zero = dict.fromkeys(MEASURES, 0.0)
    if not path.exists():
        return ("invalid" if refused.exists() else "missing"), zero, 0
    value, is_json = read(path)
    if value is None:
        return "invalid", zero | {"json": float(is_json)}, 0
    names, steps = set(value["agents_names"]), value["socialized_context"]
    whole = [set(step["observations"]) == names == set(step["actions"]) for step in steps]
    agents = mean([float(is_whole) for is_whole in whole])
    order = timesteps(steps)
    structural = 0.3 + 0.4 * agents + 0.3 * order
    gold_names, gold_steps, _ = resolve(gold)
    _, generated_steps, unresolved = resolve(value)
    found = {
        "structural": structural,
        "json": 1.0,
        "shape": 1.0,
        "agents_in_steps": agents,
        "timesteps": order,
        "same_agents": float(set(gold_names) == names),
        "same_steps": float(len(gold_steps) == len(steps)),
    }
    for name, pairs_of in zip(("state", "observations", "actions"), agreements(gold_steps, generated_steps)):
        found[f"{name}_exact"] = mean([exact for exact, _ in pairs_of])
        found[f"{name}_f1"] = mean([f1 for _, f1 in pairs_of])
    found["overall"] = 0.3 * structural + 0.7 * found["observations_f1"]
    return "valid", found, unresolved


def draws(seed, number, count):
    """splitmix64."""
    mask = 2**64 - 1
    state = int.from_bytes(hashlib.sha256(f"{seed}:resample:{number}".encode()).digest()[:8], "big")
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & mask
        mixed = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & mask
        yield ((mixed ^ (mixed >> 31)) * count) >> 64


def intervals(rows, seed, resamples):
    """For each measure (mean, low, high)."""
    columns = {measure: [row[measure] for row in rows] for measure in MEASURES}
    means = {measure: [] for measure in MEASURES}
    for number in range(resamples):
        chosen = list(draws(seed, number, len(rows)))
        for measure, column in columns.items():
            means[measure].append(sum(column[index] for index in chosen) / len(rows))

    def quantile(values, part):
        place = part * (len(values) - 1)
        below = int(place)
        above = min(below + 1, len(values) - 1)
        return values[below] + (values[above] - values[below]) * (place - below)

    found = {}
    for measure, column in columns.items():
        ordered = sorted(means[measure])
        found[measure] = mean(column), quantile(ordered, 0.025), quantile(ordered, 0.975)
    return found


class Differences:
    """What is not as expected; ends the program with the first of it."""

    def __init__(self):
        self.compared, self.found = 0, []

    def expect(self, what, found, expected):
        self.compared += 1
        is_same = abs(found - expected) < 1e-9 if isinstance(expected, float) else found == expected
        if not is_same:
            self.found.append(f"{what}: {found}, expected {expected}")

    def totals(self, what, found, expected):
        for measure in MEASURES:
            for end, value in zip(("mean", "low", "high"), expected[measure]):
                self.expect(f"{what} {measure} {end}", found[measure][end], value)


def compare(directory):
    document = json.loads((directory / "document.json").read_text("utf-8"))
    differences = Differences()
    golds = {path.name: read(path)[0] for path in (directory / "gold").glob("*.json")}
    keys = sorted(key for key, gold in golds.items() if gold is not None)
    differences.expect("keys", [item["key"] for item in document["records"]], keys)
    rejected = sorted(key for key, gold in golds.items() if gold is None)
    differences.expect("rejected", [item["key"] for item in document["gold"]["rejected"]], rejected)
    expected = {}
    for item in document["records"]:
        key = item["key"]
        differences.expect(f"{key} tags", item["unresolved_tags"], resolve(golds[key])[2])
        for side, found in zip("ab", item["answers"]):
            path = directory / side / key
            status, values, unresolved = scores(golds[key], path, path.with_suffix(".invalid.json"))
            expected[side, key] = status, values
            differences.expect(f"{side}/{key} status", found["status"], status)
            differences.expect(f"{side}/{key} tags", found["unresolved_tags"], unresolved)
            for measure in MEASURES:
                differences.expect(f"{side}/{key} {measure}", found["scores"][measure], values[measure])
    how = document["seed"], document["resamples"]
    for side, found in zip("ab", document["sets"]):
        rows = [expected[side, key][1] for key in keys]
        differences.totals(side, found["scores"], intervals(rows, *how))
        counts = collections.Counter(expected[side, key][0] for key in keys)
        differences.expect(f"{side} coverage", +collections.Counter(found["coverage"]), counts)
    both = [key for key in keys if "missing" not in (expected["a", key][0], expected["b", key][0])]
    rows = [
        {name: expected["b", key][1][name] - expected["a", key][1][name] for name in MEASURES} for key in both
    ]
    differences.expect("pairs", document["difference"]["references"], len(both))
    differences.totals("difference", document["difference"]["scores"], intervals(rows, *how))
    valid = sum(status == "valid" for status, _ in expected.values())
    print("\n".join(differences.found[:20]))
    print(f"{len(keys)} records, {valid} valid answers, {differences.compared} values, ", end="")
    print(f"{len(differences.found)} differences")
    sys.exit(bool(differences.found))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["generate", "compare"])
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("--records", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    if arguments.command == "generate":
        generate(arguments.directory, arguments.records, arguments.seed)
    else:
        compare(arguments.directory)


if __name__ == "__main__":
    main()
