"""A pipeline file from a stranger: by itself it runs no code, opens no door and leaks no secret."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from pipeline import api
from pipeline.cli.main import main
from pipeline.config.trust import SCHEDULER_VARIABLE
from pipeline.model.errors import PipelineError, RasterpipeError
from pipeline.storage.folder import remote as object_folder
from pipeline.storage.folder.address import ENDPOINT_VARIABLES, Access
from pipeline.storage.folder.open import folder_at
from pipeline.storage.folder.remote import ObjectFolder
from pipeline.verbs.demo.synth import synth
from tests.dask_process import ROOT

LOCAL = {"module": "dask.distributed", "class": "LocalCluster"}
SLURM = {"module": "dask_jobqueue", "class": "SLURMCluster"}
SECRET = "hunter2-of-the-environment"
AWS = {"AWS_ACCESS_KEY_ID": "an-id", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": f"session-{SECRET}"}


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*ENDPOINT_VARIABLES, SCHEDULER_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**AWS, "DB_PASSWORD": SECRET, "XDG_CONFIG_HOME": str(tmp_path / "config")}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a scene, which is the working directory."""
    folder = tmp_path / "strange"
    folder.mkdir()
    monkeypatch.chdir(folder)
    synth("scene.zarr", size=(24, 24), bands=1)
    return folder


def write(
    folder: Path, scheduler: Any = "threads", image: Any = "scene.zarr", output: Mapping[str, Any] | None = None
) -> Path:
    step = {"name": "smooth", "op": "window", "size": 3, "statistics": ["mean"]}
    document = {"inputs": {"image": image}, "steps": [step], "output": {"path": "out.zarr", **(output or {})}}
    path = folder / "pipeline.yaml"
    path.write_text(yaml.safe_dump(document | {"run": {"workers": 1, "scheduler": scheduler}}, sort_keys=False))
    return path


def call(*arguments: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    return done.exit_code, done.stderr


def check_refused(path: Path, *words: str) -> None:
    """Check that every command refuses a file, with its places, before anything is done."""
    before = sorted(path.parent.rglob("*"))
    for command in (["run"], ["plan"], ["validate"], ["validate", "--no-inputs"]):
        code, text = call(*command, path)
        assert code == 3
        for word in words:
            assert re.search(r"pipeline\.yaml:\d+:\d+: [\w.]*" + re.escape(word), text), text
        assert "add --trust (in Python: trust=True), or the line" in text
        assert SECRET not in text
    assert sorted(path.parent.rglob("*")) == before


# --- code, and doors ---------------------------------------------------------------------------------------------

ASKING: Mapping[str, tuple[Any, str]] = {
    "a module": (
        {"module": "antigravity", "class": "Cluster"},
        "run.scheduler.module: 'antigravity' is code to",
    ),
    "a class": ({**LOCAL, "class": "SSHCluster"}, "run.scheduler.class: 'SSHCluster' is code to import"),
    "arguments by position": ({**LOCAL, "args": [None, 1]}, "run.scheduler.args[0]: got nothing"),
    "preload": ({**LOCAL, "kwargs": {"preload": "x.py"}}, "run.scheduler.kwargs.preload: got 'x.py'"),
    "preload as text": (
        {**LOCAL, "kwargs": {"preload": ["import os"]}},
        "run.scheduler.kwargs.preload[0]: got",
    ),
    "preload of nannies": ({**LOCAL, "kwargs": {"preload_nanny": "x.py"}}, "run.scheduler.kwargs.preload_nanny: got"),
    "preload of the scheduler": (
        {**LOCAL, "kwargs": {"scheduler_kwargs": {"preload": "x.py"}}},
        "run.scheduler.kwargs.scheduler_kwargs.preload: got 'x.py'",
    ),
    "configuration": (
        {**LOCAL, "kwargs": {"config": {"distributed.worker.preload": ["x.py"]}}},
        "run.scheduler.kwargs.config.distributed.worker.preload[0]: got 'x.py'",
    ),
    "a key within one that is fine": (
        {**LOCAL, "kwargs": {"n_workers": {"n_workers": 1}}},
        "run.scheduler.kwargs.n_workers.n_workers: got 1",
    ),
    "nothing in it": ({**LOCAL, "kwargs": {"security": {}}}, "run.scheduler.kwargs.security: got a mapping"),
    "job script": ({**SLURM, "kwargs": {"job_script_prologue": ["id"]}}, "kwargs.job_script_prologue[0]: got 'id'"),
    "python": ({**SLURM, "kwargs": {"python": "evil"}}, "run.scheduler.kwargs.python: got 'evil'"),
    "account": ({**SLURM, "kwargs": {"account": "a\nid"}}, r"run.scheduler.kwargs.account: got 'a\nid'"),
    "local directory": ({**SLURM, "kwargs": {"local_directory": "$(id)"}}, "kwargs.local_directory: got '$(id)'"),
    "adapt": ({**LOCAL, "adapt": {"worker_key": "x"}}, "run.scheduler.adapt.worker_key: got 'x'"),
    "interface": ({**LOCAL, "kwargs": {"interface": "eth0"}}, "run.scheduler.kwargs.interface: got 'eth0'"),
    "host": ({**LOCAL, "kwargs": {"host": "0.0.0.0"}}, "run.scheduler.kwargs.host: got '0.0.0.0'"),
    "host of the scheduler": (
        {**LOCAL, "kwargs": {"scheduler_kwargs": {"host": "0.0.0.0"}}},
        "run.scheduler.kwargs.scheduler_kwargs.host: got",
    ),
    "the seventh": ({**LOCAL, "args": [None] * 6 + ["0.0.0.0"]}, "run.scheduler.args[6]: got '0.0.0.0'"),
    "dashboard": ({**LOCAL, "kwargs": {"dashboard_address": ":0"}}, "kwargs.dashboard_address: got ':0'"),
    **{
        f"a scheduler at {host}": (f"tcp://{host}:8786", f"run.scheduler: connects to tcp://{host}:8786, which is not")
        for host in ("10.1.2.3", "127.0.0.1.evil.com", "localhost.evil.com", "127.evil", "0.0.0.0", "[fe80::1]")
    },
    "a scheduler by tls": ("tls://evil.com:1", "run.scheduler: connects to tls://evil.com:1"),
}


@pytest.mark.parametrize("case", ASKING)
def test_what_runs_code_or_opens_doors_takes_the_word_of_the_user(case: str, here: Path) -> None:
    scheduler, words = ASKING[case]
    check_refused(write(here, scheduler), words)
    assert "antigravity" not in sys.modules


FINE: Mapping[str, Any] = {
    "threads": "threads",
    "a local cluster": {
        **LOCAL,
        "kwargs": {"n_workers": 1, "threads_per_worker": 1, "processes": True, "memory_limit": "1GiB"},
        "wait": 5,
    },
    "by its other name": {"module": "distributed", "class": "LocalCluster", "scale": 2},
    "one that adapts": {**LOCAL, "adapt": {"minimum": 1, "maximum": 2}},
    **{host: f"tcp://{host}:8786" for host in ("127.0.0.1", "127.1.2.3", "localhost", "[::1]")},
    "by tls": "tls://127.0.0.1:1",
}


@pytest.mark.parametrize("case", FINE)
def test_what_a_file_may_ask_for_by_itself(case: str, here: Path) -> None:
    assert call("validate", write(here, FINE[case])) == (0, "")


def test_one_message_lists_all_with_places(here: Path) -> None:
    """However many there are: the worst might stand last."""
    kwargs = {f"key{number}": number for number in range(40)} | {"preload": "x.py"}
    storage = {"endpoint": "http://user:pass@elsewhere"}
    path = write(here, {**LOCAL, "kwargs": kwargs}, output={"path": "${DB_PASSWORD}.zarr", "storage": storage})
    code, text = call("validate", path)
    lines = text.splitlines()
    assert code == 3
    assert lines[0] == "error:"
    told = [line for line in lines[1:-1] if not line.startswith("    ")]  # without what is quoted of the file
    assert [line.partition("pipeline.yaml:")[2].split(": ")[1] for line in told] == [
        "output.path", "output.storage.endpoint",
        *(f"run.scheduler.kwargs.{key}" for key in kwargs),
    ]  # fmt: skip
    assert "pipeline.yaml:10:9: output.path: " in lines[1]
    assert "pass@" not in text
    assert lines[-1].startswith("This takes your word: ")
    assert lines[-1].endswith(f"or the line {here} to {here.parent}/config/rasterpipe/trusted")


@pytest.mark.thorough
def test_a_preload_runs_when_it_is_trusted_and_not_before(here: Path) -> None:
    (here / "preload.py").write_text(f"open({str(here / 'ran')!r}, 'w').close()\n")
    kwargs = {"n_workers": 1, "threads_per_worker": 1, "preload": str(here / "preload.py")}
    path = write(here, {**LOCAL, "kwargs": kwargs})
    command = [sys.executable, "-m", "pipeline", "run", str(path)]
    for options, code in (((), 3), (("--trust",), 0)):
        variables = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run([*command, *options], env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        assert (here / "ran").exists() is (here / "out.zarr").exists() is bool(options)


def test_a_job_script_gets_no_commands_even_if_trusted(here: Path) -> None:
    for key in ("account", "local_directory", "queue"):
        for text in ("a\nid", "$(id)", "`id`", "a; id", "a & id", "a | id", "a > b"):
            path = write(here, {**SLURM, "kwargs": {key: text}})
            code, message = call("validate", "--trust", path)
            assert (code, "which the shell of a job script would obey" in message) == (3, True)
            assert f"pipeline.yaml:17:{9 + len(key)}: run.scheduler.kwargs.{key}: holds " in message
    nested = {**SLURM, "kwargs": {"worker_extra_args": ["--x", "$(id)"]}}
    assert "kwargs.worker_extra_args[1]: holds '$('" in call("validate", "--trust", write(here, nested))[1]
    directive = {**SLURM, "kwargs": {"job_extra_directives": ["--x=1\nid"]}}
    assert "kwargs.job_extra_directives[0]: holds '\\n'" in call("validate", "--trust", write(here, directive))[1]
    scripts = {"job_script_prologue": ["module load x; export A=$(pwd)"], "job_extra_directives": ["--x=$(y)"]}
    plain = {"account": "survey", "local_directory": "$TMPDIR/x", "walltime": "01:00:00"}
    assert call("validate", "--trust", write(here, {**SLURM, "kwargs": scripts | plain})) == (0, "")


# --- the word ------------------------------------------------------------------------------------------------------


def test_the_command_line_is_the_word_of_the_user(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(here, LOCAL, image={"path": "scene.zarr", "storage": {"region": "x"}})
    for options in (
        ["--scheduler", "tcp://10.1.2.3:1"],
        ["--set", "run.scheduler.kwargs={interface: lo}"],
        ["--set", "run.scheduler.kwargs.interface=lo"],
        ["--set", "run.scheduler={module: antigravity, class: Cluster, args: [1]}"],
        ["--set", "inputs.image.storage.endpoint=http://127.0.0.1:9"],
    ):
        assert call("validate", path, *options) == (0, "")
    path = write(here, {**LOCAL, "kwargs": {"preload": "x.py"}})
    for options in ([], ["--set", "run.scheduler.kwargs.host=127.0.0.1"], ["--set", "run.scheduler.class=Other"]):
        code, text = call("validate", path, *options)
        assert (code, "run.scheduler.kwargs.preload" in text) == (3, True)  # it is still the file's
    assert call("validate", path, "--set", "run.scheduler.kwargs.preload=y.py") == (0, "")
    monkeypatch.setenv(SCHEDULER_VARIABLE, "tcp://10.1.2.3:1")
    assert call("validate", write(here, "tcp://10.1.2.3:1")) == (0, "")
    assert call("validate", write(here, f"${{{SCHEDULER_VARIABLE}}}")) == (0, "")
    assert call("validate", write(here, "tcp://10.1.2.4:1"))[0] == 3


def test_trust_is_given_by_the_flag_or_from_python(here: Path) -> None:
    path = write(here, {**LOCAL, "kwargs": {"interface": "lo"}})
    for command in (["plan"], ["validate"], ["validate", "--no-inputs"]):
        assert call(*command, path, "--trust")[0] == 0
    assert api.validate(path, trust=True)["valid"]
    assert api.validate(yaml.safe_load(path.read_text()))["valid"]  # a mapping is its maker's own word
    for source in (path, yaml.safe_load(path.read_text())):
        with pytest.raises(PipelineError, match=r"run\.scheduler\.kwargs\.interface: got 'lo'"):
            api.plan(source, trust=False)
    assert "no such option '--allow-cluster'" in call("run", path, "--allow-cluster", "a:b")[1].lower()


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    folder = tmp_path / "config" / "rasterpipe"
    folder.mkdir(parents=True, mode=0o755)
    return folder / "trusted"


def test_folders_that_the_settings_trust(here: Path, settings: Path, tmp_path: Path) -> None:
    path = write(here, {**LOCAL, "kwargs": {"interface": "lo"}})
    (here / "below").mkdir()
    below = here / "below" / "pipeline.yaml"
    below.write_text(path.read_text().replace("scene.zarr", "../scene.zarr"))
    link, inwards = tmp_path / "link", tmp_path / "inwards.yaml"
    link.symlink_to(here)
    inwards.symlink_to(path)
    for line, trusted in {
        f"# mine\n\n  {here}  \n": (path, below, link / "pipeline.yaml", inwards),
        str(link): (path, below, link / "pipeline.yaml", inwards),
        str(here / "below"): (below, link / "below" / "pipeline.yaml"),
        "\n.\nstrange\n": (),
        str(here)[:-1]: (),
    }.items():
        settings.write_text(line)
        for file in (path, below, link / "pipeline.yaml", inwards):
            assert call("validate", "--no-inputs", file)[0] == (0 if file in trusted else 3), (line, file)


def test_a_link_that_leads_out_of_a_trusted_folder(here: Path, settings: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "linked.yaml").symlink_to(write(here, {**LOCAL, "kwargs": {"interface": "lo"}}))
    settings.write_text(str(mine))
    code, text = call("validate", "--no-inputs", mine / "linked.yaml")
    assert (code, f"or the line {here} to" in text) == (3, True)


def test_settings_of_the_home_folder(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(here, {**LOCAL, "kwargs": {"interface": "lo"}})
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", "config")  # not absolute: does not count
    assert f"to {tmp_path}/.config/rasterpipe/trusted" in call("validate", path)[1]
    (tmp_path / ".config" / "rasterpipe").mkdir(parents=True)
    (tmp_path / ".config" / "rasterpipe" / "trusted").write_text("~/strange\n")
    assert call("validate", path) == (0, "")


@pytest.mark.parametrize("mode", [0o664, 0o646])
@pytest.mark.parametrize("what", ["file", "folder"])
def test_settings_that_others_can_write_to_are_not_believed(here: Path, settings: Path, mode: int, what: str) -> None:
    path = write(here, {**LOCAL, "kwargs": {"interface": "lo"}})
    settings.write_text(str(here))
    assert call("validate", path) == (0, "")
    place = settings if what == "file" else settings.parent
    place.chmod(mode if what == "file" else mode | 0o111)
    code, text = call("validate", path)
    assert (code, f"{place} is not believed: others can write to it; chmod go-w {place}" in text) == (3, True)


def test_settings_of_somebody_else_are_not_believed(
    here: Path, settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(here, {**LOCAL, "kwargs": {"interface": "lo"}})
    settings.write_text(str(here))
    owner = settings.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    code, text = call("validate", path)
    assert (code, f"{settings} is not believed: it belongs to user {owner}, not to you" in text) == (3, True)


def test_a_record_is_not_the_word_of_who_verifies_it(here: Path, settings: Path) -> None:
    """A store may come from a stranger, too."""
    api.run(write(here))
    record = json.loads((here / "out.zarr" / "zarr.json").read_text())
    config = record["attributes"]["rasterpipe"]["config"]
    config["inputs"]["image"] = {"path": "s3://bucket/x.zarr", "storage": {"endpoint": "http://127.0.0.1:9"}}
    (here / "out.zarr" / "zarr.json").write_text(json.dumps(record))
    code, text = call("verify", "out.zarr")
    assert (code, "inputs.image.storage.endpoint: 'http://127.0.0.1:9' gets requests signed" in text) == (3, True)
    assert call("verify", "out.zarr", "--trust")[0] == 4  # nobody answers there
    settings.write_text(str(here))
    assert call("verify", "out.zarr")[0] == 4


# --- secrets -------------------------------------------------------------------------------------------------------


class _Recorder(BaseHTTPRequestHandler):
    """Finds nothing, and remembers what it was asked."""

    requests: list[str]

    def do_GET(self) -> None:
        self.requests.append(f"{self.path}\n{self.headers}")
        self.send_response(404)
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def elsewhere() -> Iterator[tuple[str, list[str]]]:
    """A server that is not the provider's, and the requests that it got."""
    requests: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Recorder", (_Recorder,), {"requests": requests}))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", requests
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("scheme", ["s3", "az"])
def test_credentials_go_to_no_other_endpoint(
    here: Path, elsewhere: tuple[str, list[str]], scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "aHVudGVyMg==")
    monkeypatch.setattr(object_folder, "RETRIES", 0)
    endpoint, requests = elsewhere
    image = {"path": f"{scheme}://theirs/x.zarr", "storage": {"endpoint": endpoint}}
    check_refused(write(here, image=image), f"inputs.image.storage.endpoint: '{endpoint}' gets requests signed")
    check_refused(write(here, output={"path": f"{scheme}://theirs/x.zarr", "storage": {"endpoint": endpoint}}))
    assert requests == []
    image["storage"] = {"endpoint": endpoint, "anonymous": True}
    assert call("plan", write(here, image=image))[0] == 4  # what is not there
    assert requests
    heard = "".join(requests).lower()
    for word in ("authorization", "x-amz-security-token", "sharedkey", "signature", SECRET, "an-id"):
        assert word not in heard
    requests.clear()
    image["storage"] = {"endpoint": endpoint}
    assert call("plan", write(here, image=image), "--trust")[0] == 4
    assert "authorization" in "".join(requests).lower()


def test_the_endpoint_that_the_environment_names(
    here: Path, elsewhere: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(here, image={"path": "s3://mine/x.zarr", "storage": {"endpoint": f"{elsewhere[0]}/"}})
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AWS_ENDPOINT_URL_S3"):
        with monkeypatch.context() as patch:
            patch.setenv(name, elsewhere[0])
            assert call("validate", "--no-inputs", path) == (0, "")
    assert call("validate", "--no-inputs", path)[0] == 3
    assert call("validate", "--no-inputs", path, "--set", "inputs.image.storage.anonymous=true")[0] == 0


@pytest.mark.parametrize("host", ["x.r2.cloudflarestorage.com", "theirs.blob.core.windows.net", "b.s3.x.amazonaws.com"])
def test_web_servers_get_no_credentials_whatever_they_are_called(host: str) -> None:
    from obstore.store import HTTPStore

    folder = folder_at(f"https://{host}/container/x.zarr", Access())
    assert isinstance(folder, ObjectFolder)
    assert isinstance(folder.objects, HTTPStore)


@pytest.mark.parametrize("region", ["evil.com/", "x@evil.com:1/", "a.b", "", "a b"])
def test_a_region_names_no_host(here: Path, region: str) -> None:
    """The host is made of it: s3.REGION.amazonaws.com."""
    path = write(here, image={"path": "s3://theirs/x.zarr", "storage": {"region": region}})
    code, text = call("plan", path, "--trust")
    assert (code, "storage.region: must be letters, digits, - and _" in text) == (3, True)


@pytest.mark.parametrize(
    "name",
    [
        *("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "DB_PASSWORD", "db_password", "MYSQL_PWD", "PGPASSFILE"),
        *("GITHUB_PAT", "HTTPS_PROXY", "AZURE_STORAGE_CONNECTION_STRING", "X_CREDENTIALS", "SIGNATURE", "AUTHOR"),
        *("GOOGLE_APPLICATION_CREDENTIALS", "SSH_AUTH_SOCK", "PRIVATE", "AZURE_SAS", "SESSION_COOKIE", "MONKEY_DIR"),
    ],
)
@pytest.mark.parametrize("form", ["s3://theirs/${%s}/x.zarr", "o_${%s}.zarr", "${%s:-x}", "${%s}"])
def test_variables_that_speak_of_secrets_are_not_read(
    here: Path, name: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, SECRET)
    text = form % name
    for path in (write(here, image=text), write(here, output={"path": text}), write(here, {**LOCAL, "wait": text})):
        for options in ([], ["--trust"]):
            code, message = call("validate", "--no-inputs", path, *options)
            assert (code, f"the variable '{name}' speaks of a secret by its name" in message) == (3, True)
            assert SECRET not in message


def test_other_variables_are_read(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SCENES", "PWD", "OLDPWD", "SPINE", "PATH_2"):
        monkeypatch.setenv(name, str(here))
        assert call("validate", write(here, image=f"${{{name}}}/scene.zarr")) == (0, "")


def test_a_value_of_the_command_line_takes_the_place_of_a_secret(here: Path) -> None:
    path = write(here, image={"stack": ["${DB_PASSWORD}.zarr"]}, output={"path": "${DB_PASSWORD}.zarr"})
    assert call("validate", path, "--input", "image=scene.zarr", "-o", "out.zarr") == (0, "")


# --- what the shell has expanded already ---------------------------------------------------------------------------


def test_names_on_the_command_line_mean_what_they_are(here: Path) -> None:
    os.rename("scene.zarr", "a$$b.zarr")
    names = ["c$$d.zarr", "${DB_PASSWORD}.zarr", "e${NOPE}.zarr", "f${.zarr"]
    for target in names:
        assert call("apply", "window", "size=3", "statistics=[mean]", "a$$b.zarr", target)[0] == 0
        assert (here / target).is_dir()
        assert call("verify", target, "--samples", "1")[0] == 0
        assert call("convert", target, f"g{target}", "--array", "window/mean")[0] == 0
        assert (here / f"g{target}").is_dir()
    path = write(here)
    for options in (["--input", "image=a$$b.zarr"], ["--set", "inputs.image=a$$b.zarr"]):
        for target in (["-o", "x$$y.zarr"], ["--set", "output.path=x$$y.zarr"]):
            assert call("run", path, *options, *target, "--overwrite")[0] == 0
            assert (here / "x$$y.zarr").is_dir()


def test_a_run_of_a_file_is_recorded_by_the_names_that_it_meant(here: Path) -> None:
    path = write(here, output={"path": "a$$b.zarr"})
    facts = api.run(path)
    assert facts["output"] == str(here / "a$b.zarr")
    assert api.run(path, resume=True)["output"] == facts["output"]
    assert api.verify(facts["output"], samples=1)["agrees"]
    with pytest.raises(RasterpipeError, match="--overwrite"):
        api.run(path)
