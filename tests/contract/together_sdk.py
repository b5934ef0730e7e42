"""Drives the real client, its library and its command line, through the rehearsal server.

    python together_sdk.py CTXTUNE

CTXTUNE is the program; the Python that runs this has `together` 3.1.1. A server that the
real client does not accept would prove nothing about ours. Exits 1 at the first surprise.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest.mock

import together
from together.lib import DownloadManager
from together.lib.resources import files as sdk_files

import server
from server import wait

KEY = "rehearsal-key"
MODEL = "Qwen/Qwen3-8B"
SAMPLE = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}


class Server(server.Server):
    """The server with the clients of the API."""

    def client(self, key=KEY):
        return together.Together(base_url=self.url, api_key=key, max_retries=0)

    def command(self, *arguments):
        """The JSON that the client's command line prints."""
        return json.loads(self.say(*arguments, "--json"))

    def say(self, *arguments):
        """What the client's command line prints."""
        program = pathlib.Path(sys.executable).with_name("tg")
        environment = os.environ | {
            "TOGETHER_BASE_URL": self.url,
            "TOGETHER_API_KEY": KEY,
            "TOGETHER_TELEMETRY_DISABLED": "1",
            "TOGETHER_DISABLE_VERSION_CHECK": "1",
            "TOGETHER_CREDENTIALS_PATH": str(pathlib.Path.cwd() / "credentials"),
            "HOME": str(pathlib.Path.cwd()),
        }
        command = [program, *arguments, "--non-interactive"]
        output = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert output.returncode == 0, (arguments, output.stdout, output.stderr)
        return output.stdout


def write_samples(name, count):
    path = pathlib.Path(name)
    path.write_text("".join(json.dumps({**SAMPLE, "weight": number}) + "\n" for number in range(count)))
    return path


def refused(kind, words, call):
    try:
        call()
    except kind as error:
        assert all(word in str(error) for word in words), error
    else:
        raise AssertionError(f"{kind.__name__} expected")


def files(server, client):
    """A small upload, the same again, one in parts, one that is unfit. Gives the ids to train on."""
    train, val = write_samples("train.jsonl", 300), write_samples("val.jsonl", 40)
    assert server.command("files", "check", str(train))["is_check_passed"]
    uploaded = server.command("files", "upload", str(train))
    assert uploaded["processing_status"] == "PENDING", uploaded
    again = client.files.upload(train, purpose="fine-tune")
    assert again.id == uploaded["id"], again

    limits = {"MULTIPART_THRESHOLD_GB": 0, "MIN_PART_SIZE_MB": 0, "TARGET_PART_SIZE_MB": 1 / 1024}
    with unittest.mock.patch.multiple(sdk_files, **limits):
        in_parts = client.files.upload(val, purpose="fine-tune")
    assert in_parts.bytes == val.stat().st_size > 2048, in_parts

    for file_id, path in [(again.id, train), (in_parts.id, val)]:
        judged = wait(lambda: client.files.retrieve(file_id), lambda file: file.processing_status != "PENDING")
        assert judged.processing_status == "COMPLETED" and judged.validation_report.valid, judged
        assert client.files.content(file_id).read() == path.read_bytes()

    unfit = pathlib.Path("unfit.jsonl")
    unfit.write_text(json.dumps(SAMPLE) + "\n" + '{"other": 1}\n')
    unfit = client.files.upload(unfit, purpose="fine-tune")
    judged = wait(lambda: client.files.retrieve(unfit.id), lambda file: file.processing_status != "PENDING")
    assert judged.processing_status == "INVALID_FORMAT", judged
    assert judged.validation_report.error.startswith("line 2:"), judged
    assert {file.id for file in client.files.list().data} == {again.id, in_parts.id, unfit.id}
    deleted = client.files.delete(unfit.id)
    assert deleted.deleted, deleted
    assert len(server.command("files", "list")) == 2
    return again.id, in_parts.id


def refusals(server, client, train):
    refused(together.AuthenticationError, ["Invalid API key"], server.client("wrong").files.list)
    create = client.fine_tuning.create
    refused(
        together.BadRequestError,
        ["LoRA rank must be between 1 and 64"],
        lambda: create(training_file=train, model=MODEL, lora=True, lora_r=128),
    )
    refused(together.BadRequestError, ["40"], lambda: create(training_file=train, model=MODEL, suffix="a" * 41))
    refused(together.BadRequestError, ["does not exist"], lambda: create(training_file="file-1", model=MODEL))
    unknown = "meta-llama/Meta-Llama-3.1-8B-Instruct"
    refused(together.NotFoundError, [unknown], lambda: create(training_file=train, model=unknown))


def preview(client, train):
    rows = client.fine_tuning.preview(model=MODEL, training_file=train, top_k=2, train_on_inputs=False)
    assert rows.dataset_format == "conversation" and len(rows.rows) == 2, rows
    row = rows.rows[0]
    trained = [at for at, label in enumerate(row.labels) if label != -100]
    assert [at for start, end in row.trained_spans for at in range(start, end)] == trained, row
    assert row.num_trained_tokens == len(trained) > 0 and row.num_tokens == len(row.tokens), row
    assert "".join(row.tokens[at] for at in trained) == "a<|eot_id|>" and not row.truncated, row
    refused(
        together.BadRequestError,
        ["does not exist"],
        lambda: client.fine_tuning.preview(model=MODEL, training_file="file-1"),
    )


def job(server, client, train, val):
    created = client.fine_tuning.create(
        training_file=train,
        validation_file=val,
        model="meta-llama/Meta-Llama-3.1-8B-Instruct-Reference",
        n_epochs=2,
        n_evals=2,
        n_checkpoints=2,
        lora=True,
        lora_r=64,
        lora_alpha=16,
        suffix="contract",
        random_seed=42,
        wandb_api_key="not-a-key",
    )
    assert created.status == "pending" and created.suffix == "contract", created
    assert not hasattr(created, "wandb_key"), created
    get = lambda: client.fine_tuning.retrieve(created.id)
    wait(get, lambda job: job.status == "running")
    done = wait(get, lambda job: job.status == "completed")
    assert done.total_price > 0 and done.api_model_object_id.startswith("ml_"), done
    assert done.training_type.lora_alpha == 16, done
    assert [job.id for job in client.fine_tuning.list().data] == [created.id]

    events = client.fine_tuning.list_events(created.id).data
    assert [events[0].type, events[-1].type] == ["JOB_PENDING", "JOB_COMPLETE"], events
    assert all(event.object == "fine-tune-event" for event in events)
    rows = client.fine_tuning.list_metrics(created.id).metrics
    assert sum("train/loss" in row for row in rows) == 20 and sum("eval/loss" in row for row in rows) == 2
    late = client.fine_tuning.list_metrics(created.id, global_step_from=20).metrics
    assert [row["train/global_step"] for row in late] == [20, 20], late
    checkpoints = client.fine_tuning.list_checkpoints(created.id).data
    assert [(saved.step, saved.checkpoint) for saved in checkpoints] == [
        (20, "model"),
        (20, "adapter"),
        (10, "adapter"),
    ], checkpoints
    for listed, count in [("list-events", len(events)), ("list-metrics", 22), ("list-checkpoints", 3)]:
        answer = server.command("ft", listed, created.id)
        answer = answer if isinstance(answer, list) else next(iter(answer.values()))
        assert len(answer) == count, (listed, len(answer))
    downloaded = server.command("ft", "download", created.id, "-o", "merged.tar.zst")
    assert downloaded["size"] == pathlib.Path("merged.tar.zst").stat().st_size > 100_000, downloaded


def cancelled(server, client, train):
    server.say("ft", "create", "--training-file", train, "--model", MODEL, "--lora", "--confirm")
    created = client.fine_tuning.list().data[-1]
    # The command line replaces the library's default rate when it trains a LoRA.
    assert (created.model, created.learning_rate) == (MODEL, 1e-3), created
    answer = client.fine_tuning.cancel(created.id)
    assert answer.status == "cancel_requested", answer
    wait(lambda: client.fine_tuning.retrieve(created.id), lambda job: job.status == "cancelled")
    assert client.fine_tuning.delete(created.id).message
    assert created.id not in {job["id"] for job in server.command("ft", "list")}


def chat(client):
    ask = {"model": MODEL, "messages": [{"role": "user", "content": "Mia sees Oliver."}]}
    plain = client.chat.completions.create(**ask).choices[0]
    assert plain.finish_reason == "stop" and json.loads(plain.message.content)["agents_names"] == ["Mia", "Oliver"]
    chunks = list(client.chat.completions.create(**ask, stream=True))
    assert "".join(chunk.choices[0].delta.content for chunk in chunks) == plain.message.content
    assert len(chunks) > 5 and chunks[-1].usage.total_tokens > 0, chunks[-1]
    refused(
        together.BadRequestError,
        ["model_not_available"],
        lambda: client.chat.completions.create(**{**ask, "model": "rehearsal/mine"}),
    )


def endpoints(server, client, train):
    """A deployment by the real client that our program lists and stops, and one of ours that the client asks."""
    ours = lambda *arguments: subprocess.run(
        [server.program, *arguments],
        env=os.environ | {"TOGETHER_BASE_URL": server.url, "TOGETHER_API_KEY": KEY, "HOME": str(pathlib.Path.cwd())},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    created = client.fine_tuning.create(training_file=train, model=MODEL, n_epochs=1)
    done = wait(lambda: client.fine_tuning.retrieve(created.id), lambda job: job.status == "completed")
    project = {"project_id": client.whoami().project.id}
    assert [endpoint.id for endpoint in client.endpoints.list(**project)] == []

    hosted = {model.name: model for model in client.models.list_supported(product="PRODUCT_DEDICATED")}
    assert hosted[MODEL].deployment_profiles[-1].gpu_count == 1, hosted
    rows = [line.split("\t") for line in ours("models").splitlines()]
    assert {row[0] for row in rows if row[1] != "no"} == set(hosted), rows

    theirs = client.endpoints.create(**project, name="theirs")
    model = client.models.retrieve(done.api_model_object_id, **project)
    config = client.models.configs.list(**project, reference_model_id=model.base_model_id).data[-1]
    deployment = client.endpoints.deployments.create(
        theirs.id,
        **project,
        name="by-sdk",
        model=f"projects/{project['project_id']}/models/{done.api_model_object_id}",
        config=f"projects/{config.project_id}/configs/{config.id}",
        autoscaling={"min_replicas": 1, "max_replicas": 1},
        inactive_timeout=30,
    )
    look = lambda: client.endpoints.deployments.retrieve(deployment.id, **project, endpoint_id=theirs.id)
    wait(look, lambda deployment: deployment.status.state == "DEPLOYMENT_STATE_READY")
    split = [{"deployment_id": deployment.id, "weight": 1}]
    routed = client.endpoints.update(theirs.id, **project, update_mask="trafficSplit", traffic_split=split)
    listed = ours("endpoints").strip().split("\t")
    assert listed[:3] == [routed.name, "ready", "0.0600"] and listed[5] == "by-sdk", listed
    ours("endpoints", "stop", "theirs", "--all")
    wait(look, lambda deployment: deployment.status.state == "DEPLOYMENT_STATE_STOPPED")

    name = ours("deploy", created.id, "--name", "ours", "--yes", "--detach").strip()
    ask = {"model": name, "messages": [{"role": "user", "content": "Mia sees Oliver."}]}
    assert client.chat.completions.create(**ask).choices[0].finish_reason == "stop"
    shown = {endpoint.name: endpoint for endpoint in client.endpoints.list(**project)}
    assert [one.name for one in shown[name].deployments] == [f"{name}/ctxtune-{created.id[3:11]}"], shown
    shown = server.say("endpoints", "list", "--project", project["project_id"])
    assert "ours" in shown and "1/1" in shown, shown
    ours("endpoints", "stop", "ours")
    refused(together.BadRequestError, ["model_not_available"], lambda: client.chat.completions.create(**ask))


def cut_download(program):
    """The second request for the bytes is cut; the client goes on with a range."""
    faults = {"rules": [{"path": "/v1/finetune/download", "nth": [2], "do": {"cut_reply": 50_000}}]}
    pathlib.Path("faults.json").write_text(json.dumps(faults))
    with Server(program, "--job-seconds", "0", "--faults", "faults.json") as server:
        client = server.client()
        train = client.files.upload(write_samples("train.jsonl", 300), purpose="fine-tune")
        wait(lambda: client.files.retrieve(train.id), lambda file: file.processing_status == "COMPLETED")
        job = client.fine_tuning.create(training_file=train.id, model=MODEL)
        url = f"/v1/finetune/download?ft_id={job.id}&checkpoint=adapter"
        names = pathlib.Path("cut.tar.zst"), pathlib.Path("whole.tar.zst")
        # In blocks this small the client keeps what came before the cut.
        with unittest.mock.patch.object(sdk_files, "DOWNLOAD_BLOCK_SIZE", 4096):
            for name in names:
                DownloadManager(client).download(url, output=name, fetch_metadata=True)
        assert names[0].read_bytes() == names[1].read_bytes()


def main(program):
    program = str(pathlib.Path(program).resolve())
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        with Server(program, "--job-seconds", "3") as server:
            client = server.client()
            train, val = files(server, client)
            refusals(server, client, train)
            preview(client, train)
            job(server, client, train, val)
            cancelled(server, client, train)
            chat(client)
            endpoints(server, client, train)
        cut_download(program)
        os.chdir("/")
    print("the real client accepts the rehearsal server")


if __name__ == "__main__":
    main(*sys.argv[1:])
