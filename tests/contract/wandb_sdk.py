"""Drives the real W&B client, its library and its command line, through the rehearsal server, and our program with it.

    python wandb_sdk.py CTXTUNE

CTXTUNE is the program; the Python that runs this has `wandb` 0.31.0. What arrived is looked up
on the server. Exits 1 at the first surprise.
"""

import math
import os
import pathlib
import re
import subprocess
import sys
import tempfile

from server import Server, wait

KEY = "rehearsalrehearsalrehearsalrehearsalrehe"

CONTEXTS = pathlib.Path(__file__).resolve().parents[2] / "fixtures" / "contexts"

TRAIN = """
import argparse, wandb
parser = argparse.ArgumentParser()
parser.add_argument("--learning_rate", type=float)
parser.add_argument("--n_epochs", type=int)
arguments = parser.parse_args()
run = wandb.init()
assert dict(run.config) == vars(arguments), run.config
run.log({"val/loss": arguments.learning_rate * arguments.n_epochs})
run.finish()
"""

SWEEP = """
program: train.py
method: grid
metric: {name: val/loss, goal: minimize}
parameters:
  learning_rate: {values: [1e-6, 5.0e-5]}
  n_epochs: {values: [1, 3]}
"""


def environment(server, **more):
    """What the client needs, and nothing of the machine's own: no key, no settings, no netrc."""
    here = pathlib.Path.cwd()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    kept["PATH"] = f"{pathlib.Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    places = dict.fromkeys(["HOME", "WANDB_DIR", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"], str(here))
    ours = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY, "WANDB_ERROR_REPORTING": "false", "NETRC": "none"}
    return kept | places | ours | more


def python(server, code, exit_code=0, **more):
    """Runs a program that uses the client's library. Gives what it said."""
    command = [sys.executable, "-c", f"import wandb\n{code}"]
    return say(command, environment(server, **more), exit_code)


def wandb(server, *arguments):
    """Runs the client's command line. Gives what it said."""
    return say([sys.executable, "-m", "wandb", *arguments], environment(server))


def say(command, variables, exit_code=0):
    output = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120)
    said = output.stdout + output.stderr
    assert output.returncode == exit_code, (command, output.returncode, said)
    return said


def run(server, name):
    """The run of this name as it arrived."""
    return next(run for run in server.look("runs") if run["name"] == name)


def begin_sweep(server, text=SWEEP):
    """Creates a sweep with the client's command line. Gives what an agent takes."""
    pathlib.Path("train.py").write_text(TRAIN)
    pathlib.Path("sweep.yaml").write_text(text)
    said = wandb(server, "sweep", "--project", "sweeps", "sweep.yaml")
    return re.search(r"wandb agent (rehearsal/sweeps/\w{8})", said)[1]


def begin_agent(server, sweep):
    command = [sys.executable, "-m", "wandb", "agent", sweep]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(command, env=environment(server), text=True, **pipes)


def end_sweep(server, sweep, agent):
    """Waits for the agent, and checks that the grid was tried to its end."""
    said = agent.communicate(timeout=120)[0]
    assert agent.returncode == 0, said
    seen = next(seen for seen in server.look("sweeps") if sweep.endswith(seen["name"]))
    assert (seen["state"], len(seen["runs"]), seen["agents"]) == ("FINISHED", 4, 1), seen
    tried = []
    for name in seen["runs"]:
        arrived = run(server, name)
        assert (arrived["state"], arrived["sweep"]) == ("finished", seen["name"]), arrived
        values = [arrived["config"][key]["value"] for key in ("learning_rate", "n_epochs")]
        # The client rounds what it sends.
        assert math.isclose(arrived["summary"]["val/loss"], values[0] * values[1]), arrived
        tried.append(tuple(values))
    assert tried == [(1e-06, 1), (1e-06, 3), (5e-05, 1), (5e-05, 3)], tried


def sweep_states(server):
    sweep = begin_sweep(server)
    for flag, state in [("--resume", "RUNNING"), ("--pause", "PAUSED"), ("--cancel", "CANCELED")]:
        wandb(server, "sweep", flag, sweep)
        assert server.look("sweeps")[-1]["state"] == state, server.look("sweeps")[-1]
    bayes = SWEEP.replace("grid", "bayes")
    pathlib.Path("bayes.yaml").write_text(bayes)
    assert "random draws" in wandb(server, "sweep", "--project", "sweeps", "bayes.yaml")


def whole_run(server):
    said = python(
        server,
        """
run = wandb.init(project="p", id="whole", name="shown", config={"rate": 1e-5, "inner": {"a": [1]}},
                 tags=["t"], group="g", job_type="j", notes="n")
run.define_metric("train/step")
run.define_metric("train/*", step_metric="train/step")
for step in range(3):
    run.log({"train/step": step, "train/loss": 1 / (step + 1), "odd": float("nan")})
print("a line")
run.finish()
""",
    )
    assert f"{server.url}/rehearsal/p/runs/whole" in said, said
    arrived = run(server, "whole")
    expected = {
        "entity": "rehearsal",
        "project": "p",
        "display_name": "shown",
        "group": "g",
        "job_type": "j",
        "tags": ["t"],
        "notes": "n",
        "state": "finished",
        "exit_code": 0,
        "sweep": None,
    }
    assert {name: arrived[name] for name in expected} == expected, arrived
    config = arrived["config"]
    assert (config["rate"], config["inner"]) == ({"value": 1e-5}, {"value": {"a": [1]}}), config
    assert len(config["_wandb"]["value"]["m"]) == 2, config
    assert [row["_step"] for row in arrived["history"]] == [0, 1, 2], arrived
    assert [row["train/loss"] for row in arrived["history"]] == [1, 1 / 2, 1 / 3], arrived
    assert arrived["summary"]["train/loss"] == 1 / 3, arrived
    assert arrived["log"][-1].endswith("a line"), arrived
    assert {"config.yaml", "wandb-summary.json", "output.log"} <= set(arrived["files"]), arrived


def resumed_run(server):
    log = """
run = wandb.init(project="p", id="again", resume={resume!r}, config={{"{resume}": True}})
assert run.starting_step == {step}, run.starting_step
run.log({{"loss": {step}}})
run.finish(exit_code={exit_code})
"""
    python(server, log.format(resume="allow", step=0, exit_code=1))
    assert run(server, "again")["state"] == "failed"
    python(server, log.format(resume="allow", step=1, exit_code=0))
    python(server, log.format(resume="must", step=2, exit_code=0))
    arrived = run(server, "again")
    rows = [(row["_step"], row["loss"]) for row in arrived["history"]]
    assert rows == [(0, 0), (1, 1), (2, 2)], arrived
    assert {"allow", "must"} <= set(arrived["config"]) and arrived["state"] == "finished", arrived
    said = python(server, 'wandb.init(project="p", id="absent", resume="must")', exit_code=1)
    assert "does not exist" in said, said


def offline_run(server):
    log = 'run = wandb.init(project="p", id="offline")\nrun.log({"loss": 1})\nrun.log({"loss": 2})\nrun.finish()'
    python(server, log, WANDB_MODE="offline", WANDB_API_KEY="")
    assert all(run["name"] != "offline" for run in server.look("runs"))
    (directory,) = pathlib.Path("wandb").glob("offline-run-*-offline")
    wandb(server, "sync", str(directory))
    arrived = run(server, "offline")
    assert [row["loss"] for row in arrived["history"]] == [1, 2], arrived
    assert (arrived["state"], arrived["summary"]["loss"]) == ("finished", 2), arrived


def stopped_run(server):
    """Somebody presses Stop, and the client interrupts its program."""
    endless = """
import time
run = wandb.init(project="p", id="endless", settings=wandb.Settings(x_file_stream_transmit_interval=1))
for step in range(600):
    run.log({"loss": step})
    time.sleep(0.1)
"""
    command = [sys.executable, "-c", f"import wandb\n{endless}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = subprocess.Popen(command, env=environment(server), text=True, **pipes)
    wait(lambda: server.look("runs"), lambda runs: any(run["name"] == "endless" and run["history"] for run in runs))
    server.press_stop("endless")
    said = process.communicate(timeout=60)[0]
    assert process.returncode != 0, said
    arrived = run(server, "endless")
    assert arrived["state"] == "failed" and len(arrived["history"]) < 600, arrived


def refused_key(server):
    said = python(server, 'wandb.init(project="p", id="nobody")', exit_code=1, WANDB_API_KEY="x" * 40)
    assert "user is not logged in" in said, said
    assert all(run["name"] != "nobody" for run in server.look("runs"))


def ours(server, *arguments, **more):
    """Runs our own program against the server. Gives its standard output."""
    output = subprocess.run(
        [server.program, *arguments], env=with_ours(server, **more), capture_output=True, text=True, timeout=120
    )
    assert output.returncode == 0, (arguments, output.returncode, output.stderr)
    return output.stdout


def with_ours(server, **more):
    variables = environment(
        server,
        TOGETHER_BASE_URL=server.url,
        TOGETHER_API_KEY="rehearsal-key",
        XDG_STATE_HOME=str(pathlib.Path("state").resolve()),
        CTXTUNE_TIME_SCALE="0.05",
        **more,
    )
    variables["PATH"] = f"{pathlib.Path(server.program).parent}{os.pathsep}{variables['PATH']}"
    return variables


def begin_ours_under_the_agent(server):
    """`wandb agent` starts our program for each point of a grid."""
    pathlib.Path("ours.yaml").write_text(SWEEP)
    fixed = ["--data-dir", str(CONTEXTS), "-o", "agent-out", "--count", "4", "--max-cost", "5"]
    pathlib.Path("agent.yaml").write_text(ours(server, "sweep", "init", "ours.yaml", *fixed))
    said = wandb(server, "sweep", "--project", "ours", "agent.yaml")
    sweep = re.search(r"wandb agent (rehearsal/ours/\w{8})", said)[1]
    command = [sys.executable, "-m", "wandb", "agent", sweep]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return sweep, subprocess.Popen(command, env=with_ours(server), text=True, **pipes)


def end_ours_under_the_agent(server, sweep, agent):
    said = agent.communicate(timeout=120)[0]
    assert agent.returncode == 0, said
    seen = next(seen for seen in server.look("sweeps") if sweep.endswith(seen["name"]))
    assert (seen["state"], len(seen["runs"])) == ("FINISHED", 4), (seen, said)
    for name in seen["runs"]:
        arrived = run(server, name)
        assert (arrived["state"], arrived["sweep"]) == ("finished", seen["name"]), arrived
        assert isinstance(arrived["summary"]["val/loss"], float), arrived
        steps = [row["train/step"] for row in arrived["history"] if "train/loss" in row]
        assert steps == sorted(set(steps)) and steps, arrived


def our_offline_run(server):
    """The real `wandb sync` uploads what our program wrote offline."""
    fixed = ["finetune", str(CONTEXTS), "-o", "offline-out", "--yes", "--poll", "1s"]
    ours(server, *fixed, WANDB_MODE="offline", WANDB_DIR=str(pathlib.Path("kept").resolve()))
    (directory,) = pathlib.Path("kept").rglob("offline-run-*")
    before = {seen["name"] for seen in server.look("runs")}
    wandb(server, "sync", str(directory))
    (arrived,) = [seen for seen in server.look("runs") if seen["name"] not in before]
    assert arrived["state"] == "finished" and "val/loss" in arrived["summary"], arrived
    evals = [row for row in arrived["history"] if "eval/loss" in row]
    assert len(evals) == 3 and all(row["val/loss"] == row["eval/loss"] for row in evals), arrived


def our_run_resumed(server):
    """The real client goes on with a run that our program began."""
    before = {seen["name"] for seen in server.look("runs")}
    ours(server, "finetune", str(CONTEXTS), "-o", "resumed-out", "--yes", "--n-epochs", "2", WANDB_PROJECT="p")
    (begun,) = [seen for seen in server.look("runs") if seen["name"] not in before]
    rows = len(begun["history"])
    log = f'run = wandb.init(project="p", id="{begun["name"]}", resume="must")\nrun.log({{"note": 1}})\nrun.finish()'
    python(server, log)
    arrived = run(server, begun["name"])
    assert len(arrived["history"]) == rows + 1 and arrived["history"][-1]["note"] == 1, arrived


def main(program):
    program = str(pathlib.Path(program).resolve())
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        with Server(program, "--job-seconds", "1") as server:
            # The agent looks for work every five seconds, so the rest happens meanwhile.
            sweep = begin_sweep(server)
            agent = begin_agent(server, sweep)
            our_sweep, our_agent = begin_ours_under_the_agent(server)
            try:
                for part in (whole_run, resumed_run, offline_run, stopped_run, refused_key, sweep_states):
                    part(server)
                end_sweep(server, sweep, agent)
                end_ours_under_the_agent(server, our_sweep, our_agent)
                for part in (our_offline_run, our_run_resumed):
                    part(server)
            finally:
                agent.kill()
                our_agent.kill()
        os.chdir("/")
    print("the real W&B client accepts the rehearsal server and what our program makes there")


if __name__ == "__main__":
    main(*sys.argv[1:])
