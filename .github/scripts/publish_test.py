"""The promises of publish.py, against a local S3 server (moto) that honours
If-None-Match and If-Match as R2 does, or the tests of races would fail."""

import contextlib
import hashlib
import io
import json
import logging
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import urllib3
from botocore.awsrequest import AWSResponse
from botocore.httpsession import URLLib3Session
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer

import publish

SECRET, COMMIT, OTHER_COMMIT = "never-to-be-printed", "a" * 40, "b" * 40
WRITES = 12 + 8  # three files a platform, two `latest` a platform


class Publish(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        logging.getLogger("werkzeug").disabled = True
        server, send = ThreadedMotoServer("127.0.0.1", port=0, verbose=False), URLLib3Session.send
        server.start()
        cls.addClassCleanup(server.stop)
        cls.endpoint = "http://{}:{}".format(*server.get_host_and_port())

        def answer(session, request):
            """The server's, or the status that a test has in its place: before the request is carried out, or after."""
            call = request.method, request.url
            cls.puts += [request.url] * (request.method == "PUT" and "/echopost" in request.url)
            status = cls.before(*call)
            response = None if status else send(session, request)
            status = status or cls.after(*call)
            body = urllib3.HTTPResponse(io.BytesIO(b"<Error><Code>Injected</Code></Error>"), preload_content=False)
            return AWSResponse(request.url, status, {}, body) if status else response

        cls.enterClassContext(mock.patch.object(URLLib3Session, "send", answer))

    def setUp(self):
        Publish.puts, Publish.before, Publish.after = [], lambda *_: None, lambda *_: None
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.name = self.id()[-50:].strip("_").replace("_", "-")
        places = {"R2_ENDPOINT": self.endpoint, "R2_BUCKET": self.name, "DOWNLOADS_URL": f"{self.endpoint}/{self.name}"}
        others = {"R2_ACCESS_KEY_ID": "key-id", "R2_SECRET_ACCESS_KEY": SECRET, "PATH": os.environ["PATH"]}
        self.environment = {**places, **others, "DOWNLOADS_PREFIX": "echopost/", "GITHUB_SHA": COMMIT}
        with mock.patch.dict(os.environ, self.environment):
            self.s3 = publish.Bucket().s3
        self.s3.create_bucket(Bucket=self.name, CreateBucketConfiguration={"LocationConstraint": "auto"})
        public = {"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": f"arn:aws:s3:::{self.name}/*"}
        self.s3.put_bucket_policy(Bucket=self.name, Policy=json.dumps({"Version": "2012-10-17", "Statement": [public]}))

    def dist(self, build="one"):
        """A folder of binaries; each build has bytes of its own."""
        for platform in publish.PLATFORMS:
            place = self.folder / build / platform.replace("/", "-")
            place.mkdir(parents=True, exist_ok=True)
            for part in ("echopost", "echopost.cdx.json"):
                (place / part).write_bytes(f"{part} {platform} {build}".encode())
        return str(self.folder / build)

    def put(self, key, **metadata):
        self.s3.put_object(Bucket=self.name, Key=f"echopost/{key}", Body=b"foreign", Metadata=metadata)

    def run_main(self, *arguments, **environment):
        """Why it refused; or nothing."""
        out, end = io.StringIO(), ""
        with mock.patch.dict(os.environ, {**self.environment, **environment}, clear=True), contextlib.redirect_stdout(out):
            try:
                publish.main(arguments)
            except SystemExit as error:
                end = error.code
        self.assertNotIn(SECRET, out.getvalue() + end)
        return end

    def publishes(self, version, build="one", *arguments):
        """And it is whole then."""
        self.assertEqual(self.run_main("publish", f"--version={version}", *arguments, self.dist(build)), "")
        self.assert_whole("".join((version, *arguments)).replace("--suffix=", "-"), build)

    def refuses(self, reason, *arguments, **environment):
        refusal = self.run_main(*(arguments or ("publish", "--version=v1.3.0", self.dist())), **environment)
        self.assertRegex(refusal, rf"^publish: [^\n]*{reason}[^\n]*$", (arguments, environment))

    def content(self):
        """All objects by key, read in the server itself."""
        keys = s3_backends["123456789012"]["aws"].buckets[self.name].keys
        return {key.removeprefix("echopost/"): item.value for key, item in keys.items()}

    def assert_whole(self, title, build):
        """All files of a version, or the two of `latest`, are there, from one build."""
        content = self.content()
        for platform in publish.PLATFORMS:
            base, data = f"{platform}/echopost-{title}", f"echopost {platform} {build}".encode()
            line = f"{hashlib.sha256(data).hexdigest()}  echopost-{title}\n".encode()
            self.assertEqual((content[base], content[f"{base}.sha256"]), (data, line))
            if title != "latest":
                self.assertEqual(content[f"{base}.cdx.json"], f"echopost.cdx.json {platform} {build}".encode())

    def meanwhile(self, part, happens):
        """Calls `happens` once, before a PUT whose path ends so."""

        def before(method, path):
            if method == "PUT" and path.endswith(part):
                Publish.before = lambda *_: None
                happens()

        Publish.before = before

    def test_a_version_is_published_becomes_latest_and_is_never_overwritten(self):
        self.publishes("v1.3.0")
        self.assert_whole("latest", "one")
        for title, cache in (("v1.3.0", publish.FOR_EVER), ("latest", "no-cache")):
            head = self.s3.head_object(Bucket=self.name, Key=f"echopost/linux/amd64/echopost-{title}")
            self.assertEqual((head["CacheControl"], head["Metadata"]), (cache, {"version": "v1.3.0", "commit": COMMIT}))
        before = self.content()
        self.publishes("v1.3.0")
        self.refuses("raise VERSION", "publish", "--version=v1.3.0", self.dist("two"))
        self.refuses(f"of commit {COMMIT}.*raise VERSION", GITHUB_SHA=OTHER_COMMIT)
        self.assertEqual((self.content(), len(before), len(self.puts)), (before, WRITES, WRITES))

    def test_latest_moves_to_newer_versions_only(self):
        published = ("v1.9.0", "v1.10.0", "v1.9.1", "v2.0.0", "v1.99.99")
        for version, latest in zip(published, ("v1.9.0", "v1.10.0", "v1.10.0", "v2.0.0", "v2.0.0"), strict=True):
            self.publishes(version, version)
            self.assert_whole("latest", latest)

    def test_a_publish_killed_after_any_write_left_nothing_half_and_is_completed(self):
        put = publish.Bucket.put
        for count in range(WRITES):  # killed after a write is killed before the next one
            version, written, before = f"v1.0.{count}", [], self.content()

            def killed(bucket, key, *arguments, written=written, count=count, **condition):
                if len(written) == count:
                    raise KeyboardInterrupt  # nothing catches it
                written.append(key)
                return put(bucket, key, *arguments, **condition)

            with mock.patch.object(publish.Bucket, "put", killed), self.assertRaises(KeyboardInterrupt):
                self.publishes(version, version)
            content = self.content()
            self.assertEqual(["latest" in key for key in written], [n >= 12 for n in range(count)])
            for key in (key for key in written if key.endswith(version)):
                self.assertLessEqual({f"{key}.sha256", f"{key}.cdx.json"}, content.keys())
            self.assertLessEqual(before.items(), {**content, **{key: before.get(key) for key in written}}.items())
            self.publishes(version, version)
            self.assert_whole("latest", version)

    def test_what_was_put_there_by_other_means_is_not_overwritten(self):
        for version, key in (("v1.1.0", "linux/amd64/echopost-v1.1.0.cdx.json"), ("v1.2.0", "darwin/arm64/echopost-v1.2.0")):
            self.meanwhile(key, lambda key=key: self.put(key))
            self.refuses(f"{key} .*never overwritten", "publish", f"--version={version}", self.dist())
            self.assertEqual(self.content()[key], b"foreign")
            self.assertNotIn("latest", str(self.content().keys()))
        for n, (key, metadata, reason) in enumerate((
            ("linux/arm64/echopost-v1.0.0", {}, "never overwritten"),
            ("darwin/arm64/echopost-v1.0.1.sha256", {"commit": COMMIT}, "never overwritten"),
            ("darwin/arm64/echopost-latest", {}, "other means"),
            ("darwin/arm64/echopost-latest", {"version": "v1.0.3"}, "other means"),
        )):
            self.put(key, **metadata)
            before = self.content()
            self.refuses(f"{key} .*{reason}", "publish", f"--version=v1.0.{n}", self.dist())
            self.assertEqual(self.content(), before)

    def test_of_two_publishers_at_once_both_succeed_and_the_newer_has_latest(self):
        for n, part in enumerate(("linux/amd64/echopost-v{}", "arm64/echopost-v{}", "amd64/echopost-latest", "latest.sha256")):
            for ours, theirs in ((f"{n}.1.0", f"{n}.1.0"), (f"{n}.1.1", f"{n}.2.0")):
                self.meanwhile(part.format(ours), lambda version=f"v{theirs}": self.publishes(version, version))
                self.publishes(f"v{ours}", f"v{ours}")
                self.assert_whole(f"v{theirs}", f"v{theirs}")
                self.assert_whole("latest", f"v{theirs}")
        self.meanwhile("amd64/echopost-latest", lambda: self.put("linux/amd64/echopost-latest", version="v0.0.0"))
        self.refuses("moved by others", "publish", "--version=v9.0.0", self.dist())

    def test_a_snapshot_is_replaced_whole_and_touches_no_version_and_not_latest(self):
        self.publishes("v1.3.0")
        before = self.content()
        for build in ("snap", "again"):
            self.publishes("v1.3.0", build, "--suffix=x-2")
        self.assertEqual({key: data for key, data in self.content().items() if "x-2" not in key}, before)
        self.assertEqual(len(self.puts), WRITES + 2 * 12)
        head = self.s3.head_object(Bucket=self.name, Key="echopost/linux/amd64/echopost-v1.3.0-x-2")
        self.assertEqual(head["CacheControl"], "no-cache")
        self.meanwhile("darwin/arm64/echopost-v1.3.0-x", lambda: self.put("linux/amd64/echopost-v1.3.0-x"))
        self.refuses("replaced meanwhile", "publish", "--version=v1.3.0", "--suffix=x", self.dist())

    def test_wrong_names_settings_and_builds_are_refused_before_anything_is_written(self):
        versions = ("", "1.3.0", "v1.3", "v1.3.0-rc1", "v01.3.0", "v1.3.0\n", "v1.3.0.sha256", "latest", "../v1.3.0")
        suffixes = (
            *("", " ", "a b", " a", "a ", "a\n", "latest", "../x", "a/b", "..", ".", "a.sha256", "x.cdx.json", "Snapshot"),
            *("-x", "x-", "a--b", "--help", "a_b", "ä", "a\0b", "$(id)", "`id`", "a;b", "%2e", "x" * 41, "1.3.0"),
        )
        for reason, flag, values in (("VERSION is", "--version", versions), ("the suffix is", "--suffix", suffixes)):
            for value in values:
                self.refuses(reason, "check", f"{flag}={value}")
                self.refuses(reason, "publish", f"{flag}={value}", self.dist())
        wrong = dict.fromkeys(publish.SETTINGS, ("", "  "))
        wrong["DOWNLOADS_PREFIX"] += ("echopost", "/", "/echopost/", "../", "a//b/", "a b/")
        wrong["R2_ENDPOINT"] += ("account", "http://example.com", "ftp://127.0.0.1", f"{self.endpoint}/{self.name}")
        wrong["DOWNLOADS_URL"] += ("example.com", "http://example.com", "https://example.com/echopost")
        for name, value in ((name, value) for name, values in wrong.items() for value in values):
            command = ["check"] if name == "DOWNLOADS_URL" else []
            self.refuses(f"{name} is {'wrong' if value.strip() else 'not set'}", *command, **{name: value})
        for suffix in ("snapshot", "x", "7", "pr-123", "a" * 40, "latest-2"):
            self.assertEqual(self.run_main("check", f"--suffix={suffix}", R2_SECRET_ACCESS_KEY=""), "")
        self.refuses("check R2_BUCKET", R2_BUCKET="no-such-bucket")
        self.refuses("GITHUB_SHA", GITHUB_SHA="main")
        self.refuses("needs the folder", "publish")
        Path(self.dist("part"), "darwin-arm64/echopost.cdx.json").unlink()
        self.refuses("darwin-arm64/echopost.cdx.json: No such file", "publish", str(self.folder / "part"))
        self.assertEqual(self.puts, [])

    def test_check_says_published_when_all_is_public_and_tagged_and_takes_no_secret(self):
        root, output = self.folder / "root", self.folder / "output"
        subprocess.run(["git", "init", "--quiet", root], check=True)
        (root / "VERSION").write_text("v1.3.0\n")
        for happens in (
            lambda: None,
            lambda: self.publishes("v1.3.0"),
            lambda: (root / ".git/refs/tags/v1.3.0").write_text(f"{COMMIT}\n"),
            lambda: self.s3.delete_object(Bucket=self.name, Key="echopost/darwin/arm64/echopost-v1.3.0"),
        ):
            happens()
            with mock.patch.object(publish, "ROOT", root):
                self.run_main("check", GITHUB_OUTPUT=str(output), R2_ACCESS_KEY_ID="", R2_SECRET_ACCESS_KEY="")
        self.assertEqual(output.read_text().split(), [f"publish={said}" for said in ("true", "true", "false", "true")])

    def test_a_server_that_fails_is_an_error_and_the_next_run_completes(self):
        self.enterContext(mock.patch.object(publish, "TRIES", 1))
        for n, (method, part, status, reason) in enumerate((
            ("GET", "", 401, "check R2_ACCESS_KEY_ID"),
            ("PUT", "", 403, "check R2_ACCESS_KEY_ID"),
            *(("GET", "", status, f"could not get .* {status}.*run the workflow again") for status in (418, 500, 504)),
            *(("PUT", part, 503, "503.*run the workflow again") for part in ("arm64/echopost-v", "arm64/echopost-latest")),
        )):
            before = self.content()
            Publish.before = lambda verb, path, at=(method, part, status): at[2] if verb == at[0] and at[1] in path else None
            self.refuses(reason, "publish", f"--version=v1.0.{n}", self.dist())
            self.assertTrue(part or self.content() == before)
            Publish.before = lambda *_: None
            self.publishes(f"v1.0.{n}")
        self.s3.delete_bucket_policy(Bucket=self.name)
        self.refuses("could not ask for .*403; check DOWNLOADS_URL", "check", "--version=v1.0.0")
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
        for dist, code, end in ((self.dist(), 0, f"(commit {COMMIT}) is published.\n"), ("nowhere", 1, "must be built first\n")):
            command = [sys.executable, "-B", publish.__file__, "publish", dist]
            done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=120, check=False)
            self.assertEqual((done.returncode, (done.stderr or done.stdout)[-len(end) :]), (code, end))
