"""What the tests of publish.py stand on: a local S3 server (moto), and its bucket."""

import contextlib
import hashlib
import io
import os
import tempfile
import threading
import unittest
from pathlib import Path
from unittest import mock

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.models import s3_backends
from werkzeug.serving import WSGIRequestHandler, make_server

import publish

SECRET = "never-to-be-printed"
COMMIT, OTHER_COMMIT = "a" * 40, "b" * 40
WRITES = 1 + 12 + 8  # the set, three files a platform, two `latest` a platform


class Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_):
        pass


class Server:
    """A moto server whose answers a test may replace."""

    def __init__(self):
        self.moto = DomainDispatcherApplication(create_backend_app)
        self.puts = []
        self.interfere = None  # (method, path) -> status to answer with, or None; called before the request
        self.lose_answer = None  # (method, path) -> status to answer with, after the request was carried out
        self.http = make_server("127.0.0.1", 0, self.answer, threaded=True, request_handler=Quiet)
        self.endpoint = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def answer(self, environ, start_response):
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if method == "PUT":
            self.puts.append(path)
        status = self.interfere and self.interfere(method, path)
        if status:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        else:
            started = []
            body = list(self.moto(environ, lambda *arguments: started.append(arguments)))
            status = self.lose_answer and self.lose_answer(method, path)
            if not status:
                start_response(*started[0])
                return body
        start_response(f"{status} Injected", [("Content-Type", "application/xml")])
        return [f"<Error><Code>Injected{status}</Code></Error>".encode()]


class Case(unittest.TestCase):
    bucket_count = 0

    @classmethod
    def setUpClass(cls):
        cls.server = Server()
        cls.addClassCleanup(cls.server.http.server_close)
        cls.addClassCleanup(cls.server.http.shutdown)

    def setUp(self):
        Case.bucket_count += 1
        self.name = f"downloads-{Case.bucket_count}"
        self.environment = {
            "R2_ENDPOINT": self.server.endpoint,
            "R2_BUCKET": self.name,
            "R2_ACCESS_KEY_ID": "key-id",
            "R2_SECRET_ACCESS_KEY": SECRET,
            "DOWNLOADS_PREFIX": "echopost/",
            "GITHUB_SHA": COMMIT,
        }
        self.bucket = publish.Bucket(self.environment)
        self.bucket.s3.create_bucket(Bucket=self.name, CreateBucketConfiguration={"LocationConstraint": "auto"})
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.server.puts.clear()
        self.addCleanup(setattr, self.server, "interfere", None)
        self.addCleanup(setattr, self.server, "lose_answer", None)

    def dist(self, build="one"):
        """A folder of binaries; each build has bytes of its own."""
        dist = self.folder / build
        for platform in publish.PLATFORMS:
            place = dist / platform.replace("/", "-")
            place.mkdir(parents=True, exist_ok=True)
            (place / "echopost").write_bytes(f"binary {platform} {build}".encode())
            (place / "echopost.cdx.json").write_bytes(f'{{"{platform}":"{build}"}}'.encode())
        return str(dist)

    def run_main(self, *arguments, **environment):
        """Exit code and everything printed."""
        out = io.StringIO()
        with (
            mock.patch.dict(os.environ, {**self.environment, **environment}, clear=True),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(out),
        ):
            code = publish.main(arguments)
        self.assertNotIn(SECRET, out.getvalue())
        return code, out.getvalue()

    def publishes(self, *arguments, **environment):
        code, out = self.run_main("publish", *arguments, **environment)
        self.assertEqual(code, 0, out)
        return out

    def refuses(self, reason, *arguments, **environment):
        code, out = self.run_main(*arguments, **environment)
        self.assertEqual(code, 1, out)
        self.assertRegex(out, rf"(?m)^publish: .*{reason}")
        self.assertEqual(out.count("\npublish:") + out.startswith("publish:"), 1)
        return out

    def state(self, version, **environment):
        output = self.folder / "output"
        output.unlink(missing_ok=True)
        code, out = self.run_main("check", "--version", version, GITHUB_OUTPUT=str(output), **environment)
        self.assertEqual(code, 0, out)
        return dict(line.split("=") for line in output.read_text().splitlines())

    def content(self):
        """All objects by key, read in the server itself."""
        return {key: item.value for key, item in s3_backends["123456789012"]["aws"].buckets[self.name].keys.items()}

    def assert_whole(self, version, build):
        """All files of the version are there, from one build."""
        content = self.content()
        for platform in publish.PLATFORMS:
            base = f"echopost/{platform}/echopost-{version}"
            data = f"binary {platform} {build}".encode()
            self.assertEqual(content[base], data)
            self.assertEqual(content[f"{base}.cdx.json"], f'{{"{platform}":"{build}"}}'.encode())
            line = f"{hashlib.sha256(data).hexdigest()}  echopost-{version}\n"
            self.assertEqual(content[f"{base}.sha256"].decode(), line)

    def assert_latest(self, build):
        content = self.content()
        for platform in publish.PLATFORMS:
            data = f"binary {platform} {build}".encode()
            self.assertEqual(content[f"echopost/{platform}/echopost-latest"], data)
            line = f"{hashlib.sha256(data).hexdigest()}  echopost-latest\n"
            self.assertEqual(content[f"echopost/{platform}/echopost-latest.sha256"].decode(), line)
