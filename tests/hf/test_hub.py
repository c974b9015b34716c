"""A model goes to the hub and comes back: its own library talks, over the network, to a small server that stands in for it."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from example_run import make_run

TOKEN, COMMIT = "hf_secret", "c0ffee" * 6 + "c0ff"


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as an upload and a download ask for: one repository after the other, one commit each, everything in memory."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        address, body = urlsplit(self.path).path, self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer(401, {"error": "Invalid credentials"})
        if address == "/api/repos/create":
            name = f"me/{json.loads(body)['name']}"
            self.server.private[name] = (
                json.loads(body)["visibility"] == "private" if "visibility" in json.loads(body) else json.loads(body)["private"]
            )
            return self.answer(200, {"url": f"{self.server.address}/{name}", "name": name})
        if address == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        if address.endswith("/preupload/main"):
            files = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]]
            return self.answer(200, {"files": files})
        if address.endswith("/commit/main"):
            name = address.removeprefix("/api/models/").removesuffix("/commit/main")
            for entry in map(json.loads, body.splitlines()):
                if entry["key"] == "file":
                    self.server.files[name, entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            commit = {"commitUrl": f"{self.server.address}/{name}/commit/{COMMIT}", "commitOid": COMMIT, "success": True}
            return self.answer(200, commit)
        return self.answer(404, {"error": f"no {address}"})

    def do_GET(self):
        address = urlsplit(self.path).path
        name, _, rest = address.strip("/").partition("/resolve/")
        data = self.server.files.get((name, rest.partition("/")[2]))
        if rest and data is not None:
            return self.answer(200, data, {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT})
        own = sorted(file for repository, file in self.server.files if address.startswith(f"/api/models/{repository}"))
        if address == "/" or (own and not rest):
            files = [{"type": "file", "path": file, "size": 1, "oid": "0" * 40} for file in own]
            about = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": file} for file in own]}
            return self.answer(200, files if "/tree/" in address else about)
        kind = "EntryNotFound" if any(repository == name for repository, _ in self.server.files) else "RepoNotFound"
        return self.answer(404, {"error": "not found"}, {"X-Error-Code": kind, "X-Repo-Commit": COMMIT})

    do_HEAD = do_GET

    def answer(self, code, data, headers=()):
        body = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **dict(headers)}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *about):
        pass


@pytest.fixture
def hub(tmp_path):
    """The server; `run(*command)` runs Python with the library pointed at it."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        server.files, server.private, server.address = {}, {}, f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        about = {
            "HF_ENDPOINT": server.address,
            "HF_HOME": str(tmp_path / "home"),
            "HF_TOKEN": TOKEN,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
        }

        def run(*command, **more):
            return subprocess.run([sys.executable, *command], env=os.environ | about | more, capture_output=True, text=True, timeout=300)

        server.run = run
        yield server
        server.shutdown()


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


COMMAND = ("-m", "ritornello")
WRITE = """
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], trust_remote_code=True)
print(model.generate(**tokenizer("a", return_tensors="pt"), max_new_tokens=4, do_sample=False)[0].tolist())
"""


def test_there_and_back(run, hub, tmp_path):
    """Pushed by the command, evaluated by its name as in its folder, and opened by transformers with the code that lies beside it."""
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"sentence_good": "a b c", "sentence_bad": "c b a"}\n{"sentence_good": "he is", "sentence_bad": "he are"}\n')
    pushed = hub.run(*COMMAND, "export", str(run), "--to", "hf", "--out", str(tmp_path / "folder"), "--push", "tale", "--json")
    assert pushed.returncode == 0, pushed.stderr
    assert json.loads(pushed.stdout)["address"] == f"{hub.address}/me/tale"
    assert hub.private == {"me/tale": True}
    assert {file: data for (name, file), data in hub.files.items()} == {
        file.name: file.read_bytes() for file in (tmp_path / "folder").iterdir()
    }

    values = []
    for model in ("me/tale", str(tmp_path / "folder")):
        scored = hub.run(*COMMAND, "evaluate", model, "--pairs", str(pairs), "--out", str(tmp_path / "scores" / str(len(values))), "--json")
        assert scored.returncode == 0, scored.stderr
        values.append([(row["metric"], row["value"]) for row in json.loads(scored.stdout)["rows"]])
    assert values[0] == values[1]

    written = [hub.run("-c", WRITE, model) for model in ("me/tale", str(tmp_path / "folder"))]
    assert written[0].returncode == 0, written[0].stderr
    assert written[0].stdout == written[1].stdout


def test_what_the_hub_refuses(run, hub, tmp_path):
    """One line, and the folder is there to be pushed again."""
    pushed = hub.run(*COMMAND, "export", str(run), "--to", "hf", "--out", str(tmp_path / "folder"), "--push", "tale", HF_TOKEN="hf_other")
    assert (pushed.returncode, pushed.stderr.count("\n")) == (2, 1), pushed.stderr
    assert f"{tmp_path / 'folder'} is written, but not pushed: " in pushed.stderr
    lacking = hub.run(*COMMAND, "evaluate", "me/other", "--text", str(run / "log.jsonl"))
    assert (lacking.returncode, lacking.stderr.count("\n")) == (2, 1), lacking.stderr
    assert "me/other" in lacking.stderr
