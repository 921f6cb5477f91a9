"""The promises of publish.py, against a local S3 server (moto, which honours
If-None-Match and If-Match as R2 does; the first test says so)."""

import contextlib
import hashlib
import io
import os
import subprocess
import sys
import tempfile
import threading
import unittest
from pathlib import Path
from unittest import mock

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.models import s3_backends
from werkzeug.serving import WSGIRequestHandler, make_server

import publish

SECRET, COMMIT, OTHER_COMMIT = "never-to-be-printed", "a" * 40, "b" * 40
WRITES = 12 + 8  # three files a platform, two `latest` a platform
Quiet = type("Quiet", (WSGIRequestHandler,), {"protocol_version": "HTTP/1.1", "log": lambda *_: None})


class Publish(unittest.TestCase):
    bucket_count = 0
    before = after = None  # (method, path) -> a status in place of the answer: of a request not carried out, or carried out

    @classmethod
    def setUpClass(cls):
        moto = DomainDispatcherApplication(create_backend_app)

        def answer(environ, start_response):
            method, path, started = environ["REQUEST_METHOD"], environ["PATH_INFO"], []
            if method == "PUT" and "/echopost" in path:
                cls.puts.append(path)
            status = cls.before and cls.before(method, path)
            if status:
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            else:
                body = list(moto(environ, lambda *arguments: started.append(arguments)))
                status = cls.after and cls.after(method, path)
            if method == "HEAD" and not status and "HTTP_AUTHORIZATION" not in environ:  # the public side of the bucket
                status = 404 if not any(path.endswith(key) for key in cls.content(path.split("/")[1])) else 200
            start_response(*([f"{status} Injected", []] if status else started[0]))
            return [b"<Error><Code>Injected</Code></Error>"] if status else body

        server = make_server("127.0.0.1", 0, answer, threaded=True, request_handler=Quiet)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        cls.endpoint = f"http://127.0.0.1:{server.server_port}"
        cls.addClassCleanup(server.server_close)
        cls.addClassCleanup(server.shutdown)

    def setUp(self):
        cls = type(self)
        cls.bucket_count, cls.puts, cls.before, cls.after = cls.bucket_count + 1, [], None, None
        self.name = f"downloads-{cls.bucket_count}"
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.secrets = {"R2_ACCESS_KEY_ID": "key-id", "R2_SECRET_ACCESS_KEY": SECRET}
        places = {"R2_ENDPOINT": self.endpoint, "R2_BUCKET": self.name, "DOWNLOADS_URL": f"{self.endpoint}/{self.name}"}
        python = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
        self.environment = {**self.secrets, **places, **python, "DOWNLOADS_PREFIX": "echopost/", "GITHUB_SHA": COMMIT}
        with mock.patch.dict(os.environ, self.environment, clear=True):
            self.s3 = publish.Bucket().s3
        self.s3.create_bucket(Bucket=self.name, CreateBucketConfiguration={"LocationConstraint": "auto"})

    def dist(self, build="one"):
        """A folder of binaries; each build has bytes of its own."""
        for platform in publish.PLATFORMS:
            place = self.folder / build / platform.replace("/", "-")
            place.mkdir(parents=True, exist_ok=True)
            (place / "echopost").write_bytes(f"binary {platform} {build}".encode())
            (place / "echopost.cdx.json").write_bytes(f"sbom {platform} {build}".encode())
        return str(self.folder / build)

    def put(self, key, data, **metadata):
        self.s3.put_object(Bucket=self.name, Key=f"echopost/{key}", Body=data, Metadata=metadata)

    def run_main(self, expected, *arguments, **environment):
        """Everything printed."""
        out = io.StringIO()
        with mock.patch.dict(os.environ, {**self.environment, **environment}, clear=True):
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
                code = publish.main(arguments)
        self.assertNotIn(SECRET, out.getvalue())
        self.assertEqual(code, expected, out.getvalue())
        return out.getvalue()

    def publishes(self, version, build="one", *arguments):
        """And it is whole then."""
        out = self.run_main(0, "publish", f"--version={version}", *arguments, self.dist(build))
        self.assert_whole(version if not arguments else version + arguments[0].replace("--suffix=", "-"), build)
        return out

    def refuses(self, reason, *arguments, **environment):
        with self.subTest(reason=reason, arguments=arguments, environment=environment):
            lines = self.run_main(1, *(arguments or ("publish", "--version=v1.3.0", self.dist())), **environment).splitlines()
            self.assertRegex("\n".join(lines), rf"(?m)^publish: .*{reason}")
            self.assertEqual(sum(line.startswith("publish:") for line in lines), 1)

    @classmethod
    def content(cls, name=None):
        """All objects by key, read in the server itself."""
        keys = s3_backends["123456789012"]["aws"].buckets[name or f"downloads-{cls.bucket_count}"].keys
        return {key.removeprefix("echopost/"): item.value for key, item in keys.items()}

    def assert_whole(self, title, build):
        """All files of a version, or the two of `latest`, are there, from one build."""
        content = self.content()
        for platform in publish.PLATFORMS:
            base, data = f"{platform}/echopost-{title}", f"binary {platform} {build}".encode()
            line = f"{hashlib.sha256(data).hexdigest()}  echopost-{title}\n".encode()
            self.assertEqual((content[base], content[f"{base}.sha256"]), (data, line))
            if title != "latest":
                self.assertEqual(content[f"{base}.cdx.json"], f"sbom {platform} {build}".encode())

    def meanwhile(self, part, happens):
        """Calls `happens` once, before a PUT whose path ends so."""

        def before(method, path):
            if method == "PUT" and path.endswith(part):
                type(self).before = None
                happens()

        type(self).before = before

    def test_the_server_honours_the_conditions(self):
        there = {"Bucket": self.name, "Key": "k"}
        etag = self.s3.put_object(**there, Body=b"1", IfNoneMatch="*")["ETag"]
        for condition in ({"IfNoneMatch": "*"}, {"IfMatch": '"0"'}):
            with self.assertRaisesRegex(publish.ClientError, "PreconditionFailed"):
                self.s3.put_object(**there, Body=b"2", **condition)
        self.s3.put_object(**there, Body=b"2", IfMatch=etag)

    def test_a_version_is_published_becomes_latest_and_is_never_overwritten(self):
        self.assertIn(f"v1.3.0 (commit {COMMIT}) is published", self.publishes("v1.3.0"))
        self.assert_whole("latest", "one")
        for title, cache in (("v1.3.0", publish.FOR_EVER), ("latest", "no-cache")):
            head = self.s3.head_object(Bucket=self.name, Key=f"echopost/linux/amd64/echopost-{title}")
            self.assertEqual((head["CacheControl"], head["Metadata"]), (cache, {"version": "v1.3.0", "commit": COMMIT}))
        before = self.content()
        self.assertIn("nothing was missing", self.publishes("v1.3.0"))
        self.refuses("raise VERSION", "publish", "--version=v1.3.0", self.dist("two"))
        self.refuses(f"of commit {COMMIT}.*raise VERSION", GITHUB_SHA=OTHER_COMMIT)
        self.assertEqual((self.content(), len(before), len(self.puts)), (before, WRITES, WRITES))

    def test_latest_moves_to_newer_versions_only(self):
        for version, latest in (("v1.9.0", 1), ("v1.10.0", 1), ("v1.9.1", 0), ("v2.0.0", 1), ("v1.99.99", 0)):
            self.publishes(version, version)
            newest = version if latest else newest
            self.assert_whole("latest", newest)

    def test_a_publish_killed_after_any_write_left_nothing_half_and_is_completed(self):
        put = publish.Bucket.put
        for count in range(WRITES + 1):  # killed after a write is killed before the next one
            version, written, before = f"v1.0.{count}", [], self.content()

            def killed(bucket, key, *arguments, written=written, count=count, **condition):
                if len(written) == count:
                    raise KeyboardInterrupt  # nothing catches it
                written.append(key)
                return put(bucket, key, *arguments, **condition)

            with self.subTest(writes=count), mock.patch.object(publish.Bucket, "put", killed):
                with self.assertRaises(KeyboardInterrupt) if count < WRITES else contextlib.nullcontext():
                    self.publishes(version, version)
                content = self.content()
                self.assertEqual(["latest" in key for key in written], [n >= 12 for n in range(count)])
                for key in (key for key in written if key.endswith(version)):
                    self.assertLessEqual({f"{key}.sha256", f"{key}.cdx.json"}, content.keys())
                self.assertLessEqual(before.items(), {**content, **{key: before.get(key) for key in written}}.items())
            self.publishes(version, version)
            self.assert_whole("latest", version)

    def test_what_was_put_there_by_other_means_is_not_overwritten(self):
        for key, metadata, reason in (
            ("linux/arm64/echopost-v1.3.0", {}, "never overwritten"),
            ("darwin/arm64/echopost-v1.3.0.sha256", {"commit": COMMIT}, "never overwritten"),
            ("darwin/arm64/echopost-latest", {}, "other means"),
            ("darwin/arm64/echopost-latest", {"version": "v1.3.0"}, "other means"),
        ):
            self.put(key, b"foreign", **metadata)
            self.refuses(f"{key} .*{reason}")
            self.assertEqual(self.content(), {key: b"foreign"})  # nothing was written
            self.s3.delete_object(Bucket=self.name, Key=f"echopost/{key}")
            if "latest" not in key:
                self.meanwhile(key, lambda key=key, metadata=metadata: self.put(key, b"foreign", **metadata))
                self.refuses(f"{key} .*{reason}")
                self.assertEqual(self.content()[key], b"foreign")
                self.assertFalse([name for name in self.content() if "latest" in name])
                for name in self.content():
                    self.s3.delete_object(Bucket=self.name, Key=f"echopost/{name}")

    def test_of_two_publishers_at_once_both_succeed_and_the_newer_has_latest(self):
        for n, part in enumerate(("linux/amd64/echopost-v{}", "arm64/echopost-v{}", "amd64/echopost-latest", "latest.sha256")):
            for ours, theirs in ((f"{n}.1.0", f"{n}.1.0"), (f"{n}.1.1", f"{n}.2.0")):
                self.meanwhile(part.format(ours), lambda version=f"v{theirs}": self.publishes(version, version))
                self.publishes(f"v{ours}", f"v{ours}")
                self.assertIsNone(self.before)
                self.assert_whole(f"v{theirs}", f"v{theirs}")
                self.assert_whole("latest", f"v{theirs}")
        self.meanwhile("amd64/echopost-latest", lambda: self.put("linux/amd64/echopost-latest", b"", version="v0.0.0"))
        self.refuses("moved by others", "publish", "--version=v9.0.0", self.dist())

    def test_a_snapshot_is_replaced_whole_and_touches_no_version_and_not_latest(self):
        self.publishes("v1.3.0")
        before = self.content()
        for build in ("snap", "again"):
            self.publishes("v1.3.0", build, "--suffix=x-2")
        self.assertEqual({key: data for key, data in self.content().items() if "x-2" not in key}, before)
        self.assertFalse([path for path in self.puts[WRITES:] if "x-2" not in path])
        head = self.s3.head_object(Bucket=self.name, Key="echopost/linux/amd64/echopost-v1.3.0-x-2")
        self.assertEqual(head["CacheControl"], "no-cache")
        self.meanwhile("darwin/arm64/echopost-v1.3.0-x", lambda: self.put("linux/amd64/echopost-v1.3.0-x", b"theirs"))
        self.refuses("replaced meanwhile", "publish", "--version=v1.3.0", "--suffix=x", self.dist())

    def test_wrong_names_settings_and_builds_are_refused_before_anything_is_written(self):
        for version in ("", "1.3.0", "v1.3", "v1.3.0-rc1", "v01.3.0", "v1.3.0\n", "v1.3.0.sha256", "latest", "../v1.3.0"):
            for command in (["check"], ["publish", self.dist()]):
                self.refuses("VERSION is", *command, f"--version={version}")
        for suffix in (
            *("", " ", "a b", " a", "a ", "a\n", "latest", "../x", "a/b", "..", ".", "a.sha256", "x.cdx.json", "Snapshot"),
            *("-x", "x-", "a--b", "--help", "a_b", "ä", "a\0b", "$(id)", "`id`", "a;b", "%2e", "x" * 41, "1.3.0"),
        ):
            for command in (["check"], ["publish", self.dist()]):
                self.refuses("the suffix is", *command, f"--suffix={suffix}")
        for suffix in ("snapshot", "x", "7", "pr-123", "a" * 40, "latest-2"):
            self.run_main(0, "check", f"--suffix={suffix}", R2_SECRET_ACCESS_KEY="")
        wrong = {
            "DOWNLOADS_PREFIX": ("echopost", "/", "/echopost/", "../", "a//b/", "a b/"),
            "R2_ENDPOINT": ("account", "http://example.com", "ftp://127.0.0.1", f"{self.endpoint}/{self.name}"),
            "DOWNLOADS_URL": ("example.com", "http://example.com", "https://example.com/echopost"),
        }
        for name in publish.SETTINGS:
            for value in ("", "  ", *wrong.get(name, ())):
                command = ["check"] if name == "DOWNLOADS_URL" else []
                self.refuses(f"{name} is {'wrong' if value.strip() else 'not set'}", *command, **{name: value})
        self.refuses("check R2_BUCKET", R2_BUCKET="no-such-bucket")
        self.refuses("GITHUB_SHA", GITHUB_SHA="main")
        self.refuses("needs the folder", "publish", "--suffix=snapshot")
        Path(self.dist("empty"), "darwin-amd64/echopost").write_bytes(b"")
        self.refuses("darwin-amd64 is empty", "publish", str(self.folder / "empty"))
        self.assertEqual(self.puts, [])

    def test_check_says_published_when_all_is_public_and_tagged_and_takes_no_secret(self):
        root, output = self.folder / "root", self.folder / "output"
        subprocess.run(["git", "init", "--quiet", root], check=True)
        (root / "VERSION").write_text("v1.3.0\n")
        for happens, expected in (
            (lambda: None, "true"),
            (lambda: self.publishes("v1.3.0"), "true"),
            (lambda: (root / ".git/refs/tags/v1.3.0").write_text(f"{COMMIT}\n"), "false"),
            (lambda: self.s3.delete_object(Bucket=self.name, Key="echopost/darwin/arm64/echopost-v1.3.0"), "true"),
        ):
            happens()
            output.unlink(missing_ok=True)
            with mock.patch.object(publish, "ROOT", root):
                out = self.run_main(0, "check", GITHUB_OUTPUT=str(output), **dict.fromkeys(self.secrets, ""))
            self.assertEqual(output.read_text(), f"publish={expected}\n", out)

    def test_a_server_that_fails_is_an_error_and_the_next_run_completes(self):
        self.enterContext(mock.patch.object(publish, "TRIES", 1))
        for n, (method, part, status, reason) in enumerate((
            ("GET", "", 401, "check R2_ACCESS_KEY_ID"),
            ("PUT", "", 403, "check R2_ACCESS_KEY_ID"),
            *(("GET", "", status, f"could not get .* {status}.*run the workflow again") for status in (418, 500, 504)),
            *(("PUT", part, 503, "503.*run the workflow again") for part in ("arm64/echopost-v", "arm64/echopost-latest")),
        )):
            before = self.content()
            type(self).before = lambda verb, path, at=(method, part, status): at[2] if verb == at[0] and at[1] in path else None
            self.refuses(reason, "publish", f"--version=v1.0.{n}", self.dist())
            self.assertTrue(part or self.content() == before)
            type(self).before = None
            self.publishes(f"v1.0.{n}")
        for status in (403, 500):
            type(self).before = lambda method, _, status=status: status if method == "HEAD" else None
            self.refuses(f"could not ask for .*{status}; check DOWNLOADS_URL", "check")
        self.refuses("EndpointConnectionError.*R2_ENDPOINT", R2_ENDPOINT="http://127.0.0.1:9")
        self.refuses("MaxRetryError; check DOWNLOADS_URL", "check", DOWNLOADS_URL="http://127.0.0.1:9/x")

    def test_a_passing_failure_and_a_lost_answer_are_not_noticed(self):
        self.enterContext(mock.patch("botocore.retries.standard.ExponentialBackoff.delay_amount", return_value=0))
        for version, hook in (("v1.3.0", "before"), ("v1.4.0", "after")):
            failed = set()
            fail_once = lambda *call, failed=failed: None if call in failed else failed.add(call) or 503  # noqa: E731
            with mock.patch.object(Publish, hook, fail_once):
                self.publishes(version, version)
            self.assertEqual(len([path for method, path in failed if method == "PUT"]), WRITES)
            self.assert_whole("latest", version)

    def test_the_program_as_the_workflow_runs_it(self):
        for dist, code, out, err in (
            (self.dist(), 0, rf"\(commit {COMMIT}\) is published\.\n$", "^$"),
            ("nowhere", 1, "^$", r"^publish: nowhere/\S+: No such file.*\n$"),
        ):
            command = [sys.executable, publish.__file__, "publish", dist]
            done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=120, check=False)
            self.assertEqual(done.returncode, code, done.stderr)
            self.assertRegex(done.stdout, out)
            self.assertRegex(done.stderr, err)


if __name__ == "__main__":
    unittest.main()
