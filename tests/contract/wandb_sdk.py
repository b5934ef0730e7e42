"""Drives the real W&B client, its library and its command line, through the rehearsal server, and our program with it.

    python wandb_sdk.py CTXTUNE

CTXTUNE is the program; the Python that runs this has `wandb` 0.31.0. What arrived is looked up
on the server. Exits 1 at the first surprise.
"""

import hashlib
import json
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

from host_map import STORAGE, HostMap
from server import Server, wait

KEY = "rehearsalrehearsalrehearsalrehearsalrehe"

# The third form of the base URL.
FORWARDED = "https://forge.coreweave.com/api/wandb"

# The keys of a job in the configuration file.
KEYS = set(
    """base_model from_checkpoint n_epochs n_evals n_checkpoints learning_rate batch_size lora lora_rank lora_alpha
    lora_dropout lora_trainable_modules lr_scheduler min_lr_ratio lr_num_cycles warmup_ratio weight_decay max_grad_norm
    packing max_seq_length gradient_accumulation_steps train_on_inputs random_seed suffix early_stopping
    early_stopping_patience early_stopping_min_delta early_stopping_warmup_evals""".split()
)

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
import pathlib
run = wandb.init(project="p", id="whole", name="shown", config={"rate": 1e-5, "inner": {"a": [1]}},
                 tags=["t"], group="g", job_type="j", notes="n")
run.pin_config_keys(["rate"])
pathlib.Path("manifest.json").write_text("{}")
run.save("manifest.json")
run.alert("a title", "a text", level="WARN")
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
    assert {"config.yaml", "wandb-summary.json", "output.log", "manifest.json"} <= set(arrived["files"]), arrived
    assert arrived["digests"]["manifest.json"] == hashlib.sha256(b"{}").hexdigest(), arrived
    assert arrived["alerts"] == [{"title": "a title", "text": "a text", "severity": "WARN"}], arrived
    assert config["_wandb"]["value"]["pinned_keys"] == ["rate"], config


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


def ours(server, *arguments, exit_code=0, **more):
    """Runs our own program against the server. Gives its standard output."""
    output = subprocess.run(
        [server.program, *arguments], env=with_ours(server, **more), capture_output=True, text=True, timeout=120
    )
    assert output.returncode == exit_code, (arguments, output.returncode, output.stderr)
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
        assert KEYS <= set(arrived["config"]) and arrived["alerts"] == [], arrived
    values = [[run(server, name)["config"][key]["value"] for key in ("learning_rate", "n_epochs")] for name in seen["runs"]]
    assert values == [[1e-06, 1], [1e-06, 3], [5e-05, 1], [5e-05, 3]], values


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


def deleted_run(server):
    """A name is never free again: the client says so, and our program says what to do."""
    python(server, 'run = wandb.init(project="p", id="gone")\nrun.finish()')
    server.delete_run("gone")
    again = 'wandb.init(project="p", id="gone", settings=wandb.Settings(init_timeout=3))'
    said = python(server, again, exit_code=1)
    assert "previously created and deleted" in said, said

    ours(server, "finetune", str(CONTEXTS), "-o", "deleted-out", "--yes", "--n-epochs", "1", "--seed", "5",
         WANDB_MODE="offline", WANDB_RUN_ID="gone", WANDB_PROJECT="p")
    ours(server, "finetune", str(CONTEXTS), "-o", "deleted-out", "--yes", "--n-epochs", "2", "--seed", "5",
         WANDB_MODE="offline", WANDB_RUN_ID="kept", WANDB_PROJECT="q")
    refused = json.loads(ours(server, "wandb-sync", "deleted-out", "--json", exit_code=1))
    assert [sent["run"] for sent in refused["runs"]] == ["kept"], refused
    assert [(one["run"], one["code"]) for one in refused["refused"]] == [("gone", "deleted")], refused
    job = re.search(r"WANDB_RUN_ID=NEW_ID (ctxtune monitor ft-\S+)", refused["error"]["hint"])[1]
    ours(server, *job.split()[1:], WANDB_RUN_ID="new", WANDB_PROJECT="p")
    assert run(server, "new")["state"] == "finished", run(server, "new")
    # In another project the name is free.
    ours(server, "wandb-sync", "deleted-out", WANDB_PROJECT="elsewhere", WANDB_ENTITY="rehearsal")
    assert run(server, "gone")["project"] == "elsewhere", run(server, "gone")


def our_run_resumed(server):
    """The real client goes on with a run that our program began, and sees all that it was told."""
    before = {seen["name"] for seen in server.look("runs")}
    ours(server, "finetune", str(CONTEXTS), "-o", "resumed-out", "--yes", "--n-epochs", "2", WANDB_PROJECT="p")
    (begun,) = [seen for seen in server.look("runs") if seen["name"] not in before]
    rows = len(begun["history"])
    log = f"""
import json
run = wandb.init(project="p", id="{begun["name"]}", resume="must")
seen = dict(name=run.name, tags=run.tags, notes=run.notes, job_type=run.job_type, config=dict(run.config))
open("seen.json", "w").write(json.dumps(seen, default=str))
run.log({{"note": 1}})
run.finish()
"""
    python(server, log)
    arrived = run(server, begun["name"])
    assert len(arrived["history"]) == rows + 1 and arrived["history"][-1]["note"] == 1, arrived
    seen = json.loads(pathlib.Path("seen.json").read_text())
    config = seen["config"]
    assert KEYS <= set(config), KEYS - set(config)
    expected = {"n_epochs": 2, "learning_rate": 1e-5, "lora_rank": 64, "packing": True, "lr_scheduler": "cosine"}
    assert {key: config[key] for key in expected} == expected, config
    assert config["resolved"]["total_steps"] == arrived["summary"]["train/step"], config
    assert config["resolved"]["batch_size"] > 0 and config["resolved"]["train_tokens"] > 0, config
    assert config["job_page"].startswith(f"[{config['job_id']}]({server.url}/"), config
    assert re.fullmatch(r"socialized-context-generator-[0-9a-f]{8}", seen["name"]), seen
    assert list(seen["tags"])[:2] == ["ctxtune", "lora"], seen
    assert seen["notes"].startswith("ctxtune finetune ") and "--n-epochs 2" in seen["notes"], seen
    assert arrived["job_type"] == "fine-tune", arrived
    manifest = hashlib.sha256(pathlib.Path("resumed-out/manifest.json").read_bytes()).hexdigest()
    assert begun["digests"] == {"manifest.json": manifest}, begun
    assert [alert["severity"] for alert in begun["alerts"]] == ["INFO"], begun
    assert begun["config"]["_wandb"]["value"]["pinned_keys"] == ["job_page"], begun
    assert {saved["step"] for saved in begun["summary"]["checkpoints"]}, begun
    assert begun["summary"]["best_checkpoint"] in begun["summary"]["checkpoints"], begun


def moved_host(program):
    """Without a word about hosts both clients go to the new one, with the key that `wandb login` stored."""
    if shutil.which("openssl") is None:
        print("skipped: no openssl, so no host map")
        return
    public = ["api.forge.coreweave.com", "api.wandb.ai"]
    with Server(program, "--job-seconds", "0.5") as server:
        hosts = HostMap(".", dict.fromkeys(public, server.url))
        more = hosts.environment() | {"NETRC": str(pathlib.Path("netrc").resolve())}
        nowhere = dict.fromkeys(["WANDB_BASE_URL", "WANDB_API_KEY"], "")

        def with_map(base=None):
            variables = with_ours(server) | more
            # Only a service that is named as one of this machine may be hurried.
            for name in [*nowhere, "CTXTUNE_TIME_SCALE"]:
                variables.pop(name)
            return variables | ({"WANDB_BASE_URL": base} if base else {})

        say([sys.executable, "-m", "wandb", "login", KEY], with_map())
        stored = pathlib.Path("netrc").read_text()
        assert "machine api.forge.coreweave.com" in stored and "api.wandb.ai" not in stored, stored
        page = "https://forge.coreweave.com/wandb/rehearsal/p/runs/"
        begin = 'import wandb\nrun = wandb.init(project="p", id="moved")\nrun.finish()'
        said = say([sys.executable, "-c", begin], with_map())
        assert f"{page}moved" in said, said

        def submit(run, base=None):
            """Our program makes a run; it says where."""
            flags = ["--detach", "--yes", "--wandb-project", "p", "--no-sync"]
            variables = with_map(base) | {"WANDB_RUN_ID": run}
            return say([program, "finetune", str(CONTEXTS), "-o", "moved-out", *flags], variables)

        for index, base in enumerate([None, *(f"https://{host}" for host in public), FORWARDED]):
            settings = f"base_url={base!r}" if base else ""
            seen = say([sys.executable, "-c", f"import wandb\nprint(wandb.Settings({settings}).app_url)"], with_map())
            said = submit(f"ours-{index}", base)
            assert f"W&B: {seen.strip()}/rehearsal/p/runs/ours-{index}\n" in said, said
            assert "machine api.forge.coreweave.com of " in said, said
        # A key of the old host serves the new one.
        pathlib.Path("netrc").write_text(stored.replace("api.forge.coreweave.com", "api.wandb.ai"))
        said = submit("ours-old")
        assert f"W&B: {page}ours-old\n" in said and "machine api.wandb.ai of " in said, said
        said = say([program, "doctor", "moved-out"], with_map())
        assert "https://api.forge.coreweave.com (the default), with the key of machine api.wandb.ai" in said, said
        # The whole of it, the manifest through the storage included.
        flags = ["--yes", "--wandb-project", "p", "--no-sync"]
        say([program, "finetune", str(CONTEXTS), "-o", "moved-out", *flags], with_map() | {"WANDB_RUN_ID": "ours-0"})
        arrived = run(server, "ours-0")
        assert (arrived["state"], arrived["files"]) == ("finished", ["manifest.json"]), arrived
        assert STORAGE in {host for host, _, _ in hosts.heard} and not hosts.strange, (hosts.heard, hosts.strange)


def main(program):
    program = str(pathlib.Path(program).resolve())
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        moved_host(program)
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
                for part in (our_offline_run, our_run_resumed, deleted_run):
                    part(server)
            finally:
                agent.kill()
                our_agent.kill()
        os.chdir("/")
    print("the real W&B client accepts the rehearsal server and what our program makes there")


if __name__ == "__main__":
    main(*sys.argv[1:])
