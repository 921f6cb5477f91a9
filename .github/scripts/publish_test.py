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

sys.path.insert(0, str(Path(__file__).parent))
import publish

SECRET = "never-to-be-printed"
COMMIT, OTHER_COMMIT = "a" * 40, "b" * 40
WRITES = 1 + 12 + 8  # the set, three files a platform, two `latest` a platform


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


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


class Versions(Case):
    def test_the_server_honours_the_conditions(self):
        s3, there = self.bucket.s3, {"Bucket": self.name, "Key": "k"}
        etag = s3.put_object(**there, Body=b"1", IfNoneMatch="*")["ETag"]
        for condition in ({"IfNoneMatch": "*"}, {"IfMatch": '"0"'}):
            with self.assertRaisesRegex(publish.ClientError, "PreconditionFailed"):
                s3.put_object(**there, Body=b"2", **condition)
        s3.put_object(**there, Body=b"2", IfMatch=etag)

    def test_a_first_version_is_published_and_becomes_latest(self):
        self.assertEqual(self.state("v1.3.0"), {"state": "absent", "commit": ""})
        out = self.publishes("--version", "v1.3.0", self.dist())
        self.assert_whole("v1.3.0", "one")
        self.assert_latest("one")
        self.assertEqual(len(self.content()), WRITES)
        self.assertIn(f"v1.3.0 (commit {COMMIT}) is published", out)
        versioned = self.bucket.s3.head_object(Bucket=self.name, Key="echopost/linux/amd64/echopost-v1.3.0")
        latest = self.bucket.s3.head_object(Bucket=self.name, Key="echopost/linux/amd64/echopost-latest")
        self.assertIn("immutable", versioned["CacheControl"])
        self.assertEqual(latest["CacheControl"], "no-cache")
        self.assertEqual(latest["Metadata"], {"version": "v1.3.0", "commit": COMMIT})

    def test_latest_moves_last(self):
        self.publishes("--version", "v1.3.0", self.dist())
        kinds = ["set" if "/sets/" in put else "latest" if "-latest" in put else "version" for put in self.server.puts]
        self.assertEqual(kinds, ["set"] + ["version"] * 12 + ["latest"] * 8)

    def test_the_same_version_again_writes_nothing(self):
        self.publishes("--version", "v1.3.0", self.dist())
        self.server.puts.clear()
        self.assertEqual(self.state("v1.3.0"), {"state": "complete", "commit": COMMIT})
        out = self.publishes("--version", "v1.3.0", self.dist("another image"))
        self.assertIn("nothing was missing", out)
        self.assertEqual(self.server.puts, [])
        self.assert_whole("v1.3.0", "one")

    def test_another_commit_of_the_same_version_is_refused(self):
        self.publishes("--version", "v1.3.0", self.dist())
        self.server.puts.clear()
        self.assertEqual(self.state("v1.3.0", GITHUB_SHA=OTHER_COMMIT)["state"], "complete")
        self.refuses("raise VERSION", "publish", "--version", "v1.3.0", self.dist("two"), GITHUB_SHA=OTHER_COMMIT)
        self.assertEqual(self.server.puts, [])

    def test_a_newer_version_takes_latest_and_an_older_one_does_not_take_it_back(self):
        for version, build, latest in (
            ("v1.9.0", "one", "one"),
            ("v1.10.0", "two", "two"),
            ("v1.9.1", "three", "two"),
            ("v2.0.0", "four", "four"),
            ("v1.99.99", "five", "four"),
        ):
            self.publishes("--version", version, self.dist(build))
            self.assert_whole(version, build)
            self.assert_latest(latest)
            self.assertEqual(self.state(version)["state"], "complete")

    def test_a_publish_killed_before_any_write_is_completed_by_another_build(self):
        # Killed after a write is killed before the next one.
        for count in range(WRITES + 1):
            version = f"v1.0.{count}"
            with self.subTest(writes=count):
                earlier = self.content()
                self.killed_after(count, version, self.dist("first"))
                self.assert_consistent(version, earlier)
                expected = "complete" if count == WRITES else "partial" if count else "absent"
                if count in (0, 1, 13, 14, WRITES - 1, WRITES):
                    self.assertEqual(self.state(version)["state"], expected)
                # The workflow builds only when there is no set; a re-run of its jobs may bring another build.
                if count == 0:
                    self.publishes("--version", version, self.dist("second"))
                elif count % 2:
                    self.publishes("--version", version, GITHUB_SHA=OTHER_COMMIT)
                else:
                    self.publishes("--version", version, self.dist("second"))
                build = "first" if count else "second"
                self.assert_whole(version, build)
                self.assert_latest(build)

    def killed_after(self, count, version, dist):
        put, written = publish.Bucket.put, []

        def counted(*arguments, **condition):
            if len(written) == count:
                raise Killed
            written.append(arguments)
            return put(*arguments, **condition)

        with mock.patch.object(publish.Bucket, "put", counted):
            if count == WRITES:
                self.publishes("--version", version, dist)
            else:
                with self.assertRaises(Killed):
                    self.run_main("publish", "--version", version, dist)
        self.assertEqual(len(written), count)

    def assert_consistent(self, version, earlier):
        """Nothing without its set; `latest` is a version that is whole; what was there before is there still."""
        content = self.content()
        new = [key for key in content if version in key]
        if new:
            self.assertIn(f"echopost/sets/echopost-{version}.tar", new)
        moved = [key for key, data in content.items() if "-latest" in key and earlier.get(key) != data]
        if moved:
            self.assertEqual(len(new), 13)
            self.assert_whole(version, "first")
        for key, data in earlier.items():
            self.assertTrue(content[key] == data or "-latest" in key, key)

    def test_a_versioned_file_with_other_bytes_stops_everything(self):
        key = "linux/arm64/echopost-v1.3.0"
        self.bucket.put(key, b"foreign", {}, "no-cache")
        before = self.content()
        self.refuses("without sets/", "check", "--version", "v1.3.0")
        self.refuses(f"{key} is there with other bytes", "publish", "--version", "v1.3.0", self.dist())
        self.assertEqual(self.content(), before)

    def test_a_latest_of_unknown_version_stops_everything(self):
        key = "darwin/arm64/echopost-latest"
        for metadata, reason in (({}, "other means"), ({"version": "v1.3.0"}, "has other bytes")):
            self.bucket.put(key, b"foreign", metadata, "no-cache")
            before = self.content()
            self.refuses(f"{key} .*{reason}", "publish", "--version", "v1.3.0", self.dist())
            self.assertEqual(self.content(), before)

    def test_a_damaged_set_is_never_published(self):
        whole = publish.pack(publish.read_files(self.dist(), "v1.3.0"))
        files = publish.unpack(whole, "v1.3.0", "set")
        key = "linux/amd64/echopost-v1.3.0"
        damaged = [
            b"",
            b"not a tar" * 100,
            whole[: len(whole) // 2],
            publish.pack({**files, key: b"other"}),
            publish.pack({**files, "linux/amd64/echopost-latest": b"more"}),
            publish.pack({name: data for name, data in files.items() if name != f"{key}.cdx.json"}),
            publish.pack(publish.read_files(self.dist(), "v1.3.1")),
        ]
        for data in damaged:
            self.bucket.put("sets/echopost-v1.3.0.tar", data, {"commit": COMMIT}, "no-cache")
            self.refuses("sets/echopost-v1.3.0.tar", "publish", "--version", "v1.3.0", self.dist())
            self.assertEqual(len(self.content()), 1)

    def test_incomplete_builds_are_not_published(self):
        dist = self.dist()
        (Path(dist) / "darwin-amd64/echopost").write_bytes(b"")
        self.refuses("darwin-amd64/echopost is empty", "publish", "--version", "v1.3.0", dist)
        (Path(dist) / "darwin-amd64/echopost").unlink()
        self.refuses("darwin-amd64/echopost: No such", "publish", "--version", "v1.3.0", dist)
        self.refuses("no binaries were given", "publish", "--version", "v1.3.0")
        self.assertEqual(self.content(), {})

    def test_a_wrong_version_is_refused(self):
        for version in ("", "1.3.0", "v1.3", "v1.3.0-rc1", "v01.3.0", "v1.3.0\n", "v1.3.0.sha256", "latest", "../v1.3.0"):
            self.refuses("VERSION is", "check", f"--version={version}")
            self.refuses("VERSION is", "publish", f"--version={version}", self.dist())
        self.assertEqual(self.server.puts, [])

    def test_the_version_is_that_of_the_file(self):
        version = (publish.ROOT / "VERSION").read_text().strip()
        self.publishes(self.dist())
        self.assert_whole(version, "one")


class Races(Case):
    def meanwhile(self, happens, part):
        """Calls `happens` once, before the first PUT whose key has `part`."""

        def interfere(method, path):
            if method == "PUT" and part in path:
                self.server.interfere = None
                happens()

        self.server.interfere = interfere

    def other_publishes(self, version, build, commit=COMMIT):
        bucket = publish.Bucket(self.environment)
        with contextlib.redirect_stdout(io.StringIO()):
            publish.Version(bucket, version).publish(self.dist(build), commit)

    def test_another_publisher_of_the_same_commit_decides_and_both_succeed(self):
        for count, part in enumerate(("/sets/", "amd64/echopost-v", ".cdx.json", "amd64/echopost-latest", "latest.sha256")):
            version = f"v1.0.{count}"
            with self.subTest(part=part):
                self.meanwhile(lambda v=version: self.other_publishes(v, "theirs"), part)
                self.publishes("--version", version, self.dist("ours"))
                self.assertIsNone(self.server.interfere)
                build = "theirs" if part == "/sets/" else "ours"
                self.assert_whole(version, build)
                self.assert_latest(build)

    def test_a_foreign_file_that_comes_meanwhile_is_not_overwritten(self):
        key = "linux/arm64/echopost-v1.3.0"
        self.meanwhile(lambda: self.bucket.put(key, b"foreign", {}, "no-cache"), "linux/arm64/echopost-v")
        self.refuses(f"{key} is there with other bytes", "publish", "--version", "v1.3.0", self.dist())
        content = self.content()
        self.assertEqual(content[f"echopost/{key}"], b"foreign")
        self.assertFalse([name for name in content if "latest" in name])

    def test_another_publisher_of_another_commit_wins_the_version(self):
        self.meanwhile(lambda: self.other_publishes("v1.3.0", "theirs", OTHER_COMMIT), "/sets/")
        self.refuses(f"belongs to commit {OTHER_COMMIT}", "publish", "--version", "v1.3.0", self.dist("ours"))
        self.assert_whole("v1.3.0", "theirs")
        self.assert_latest("theirs")

    def test_a_newer_version_that_takes_latest_meanwhile_keeps_it(self):
        for part in ("linux/amd64/echopost-latest", "linux/arm64/echopost-latest.sha256"):
            self.publishes("--version", "v1.2.0", self.dist("old"))
            self.meanwhile(lambda: self.other_publishes("v1.4.0", "newer"), part)
            self.publishes("--version", "v1.3.0", self.dist("ours"))
            self.assertIsNone(self.server.interfere)
            self.assert_whole("v1.3.0", "ours")
            self.assert_latest("newer")
            self.tearDown_bucket()

    def tearDown_bucket(self):
        for key in self.content():
            self.bucket.s3.delete_object(Bucket=self.name, Key=key)

    def test_a_latest_deleted_meanwhile_is_put_again(self):
        key = "echopost/linux/amd64/echopost-latest"
        self.publishes("--version", "v1.2.0", self.dist("old"))
        self.meanwhile(lambda: self.bucket.s3.delete_object(Bucket=self.name, Key=key), "amd64/echopost-latest")
        self.publishes("--version", "v1.3.0", self.dist("ours"))
        self.assert_latest("ours")

    def test_a_latest_that_never_holds_still_is_given_up(self):
        count = iter(range(10, 1000))

        def interfere(method, path):
            if method == "PUT" and path.endswith("arm64/echopost-latest"):
                self.server.interfere = None
                key = path.removeprefix(f"/{self.name}/echopost/")
                self.bucket.put(key, str(next(count)).encode(), {"version": "v1.0.0"}, "no-cache")
                self.server.interfere = interfere

        self.server.interfere = interfere
        self.refuses("moved by others", "publish", "--version", "v1.3.0", self.dist())
        self.assert_whole("v1.3.0", "one")


class Snapshots(Case):
    def test_a_snapshot_touches_no_version_and_not_latest(self):
        self.publishes("--version", "v1.3.0", self.dist())
        before = self.content()
        self.publishes("--version", "v1.3.0", "--suffix", "snapshot", self.dist("snap"))
        self.assert_whole("v1.3.0-snapshot", "snap")
        content = self.content()
        self.assertEqual({key: content[key] for key in before}, before)
        self.assertEqual(len(content), len(before) + 12)
        self.assertEqual(self.state("v1.3.0")["state"], "complete")
        self.assertFalse([put for put in self.server.puts[WRITES:] if "latest" in put or "/sets/" in put])

    def test_a_snapshot_again_replaces_it_whole(self):
        for build in ("one", "two"):
            self.publishes("--version", "v1.3.0", "--suffix=try-2", self.dist(build))
            self.assert_whole("v1.3.0-try-2", build)
        self.assertEqual(len(self.content()), 12)
        head = self.bucket.s3.head_object(Bucket=self.name, Key="echopost/linux/amd64/echopost-v1.3.0-try-2")
        self.assertEqual(head["CacheControl"], "no-cache")

    def test_a_snapshot_replaced_by_another_run_is_no_success(self):
        key = "echopost/linux/amd64/echopost-v1.3.0-snapshot"

        def interfere(method, path):
            if method == "PUT" and path.endswith("darwin/arm64/echopost-v1.3.0-snapshot"):
                self.server.interfere = None
                self.bucket.s3.put_object(Bucket=self.name, Key=key, Body=b"theirs")

        self.server.interfere = interfere
        self.refuses("replaced meanwhile", "publish", "--version=v1.3.0", "--suffix=snapshot", self.dist())

    def test_a_wrong_suffix_is_refused(self):
        for suffix in (
            *("", " ", "a b", " a", "a ", "a\n", "latest", "../x", "a/b", "..", ".", "a.sha256", "x.cdx.json", "Snapshot"),
            *("-x", "x-", "a--b", "--help", "a_b", "ä", "a\0b", "$(id)", "`id`", "a;b", "%2e", "x" * 41, "1.3.0"),
        ):
            with self.subTest(suffix=suffix):
                self.refuses("the suffix is", "check", f"--suffix={suffix}")
                self.refuses("the suffix is", "publish", f"--suffix={suffix}", self.dist())
        self.assertEqual(self.server.puts, [])

    def test_a_good_suffix_is_taken_without_credentials(self):
        for suffix in ("snapshot", "x", "7", "pr-123", "a" * 40, "latest-2"):
            code, out = self.run_main("check", f"--suffix={suffix}", R2_SECRET_ACCESS_KEY="")
            self.assertEqual(code, 0, out)

    def test_a_snapshot_needs_binaries(self):
        self.refuses("needs the folder", "publish", "--suffix=snapshot")


class Failures(Case):
    def test_what_is_not_set_is_named(self):
        for name in publish.ENVIRONMENT:
            for value in ("", "  "):
                self.refuses(f"not set: {name}", "check", "--version", "v1.3.0", **{name: value})
                self.refuses(f"not set: {name}", "publish", "--version", "v1.3.0", self.dist(), **{name: value})
        self.refuses("GITHUB_SHA", "publish", "--version", "v1.3.0", self.dist(), GITHUB_SHA="main")
        self.assertEqual(self.server.puts, [])

    def test_a_wrong_setting_is_named(self):
        for name, value in (
            *(("DOWNLOADS_PREFIX", value) for value in ("echopost", "/", "/echopost/", "../", "a//b/", "a b/")),
            *(("R2_ENDPOINT", value) for value in ("account", "http://example.com", "ftp://127.0.0.1")),
            ("R2_ENDPOINT", f"{self.server.endpoint}/{self.name}"),
            ("R2_BUCKET", "no-such-bucket"),
        ):
            self.refuses(name, "check", "--version", "v1.3.0", **{name: value})

    def test_a_refused_key_is_named(self):
        for status in (401, 403):
            self.server.interfere = lambda method, path, status=status: status
            self.refuses("check R2_ACCESS_KEY_ID", "publish", "--version", "v1.3.0", self.dist())

    def test_a_server_that_fails_is_an_error_and_the_next_run_completes(self):
        for count, part in enumerate(("/sets/", "darwin/amd64/echopost-v", "linux/arm64/echopost-latest")):
            version = f"v1.0.{count}"
            with self.subTest(part=part), mock.patch.object(publish, "TRIES", 2):
                before = self.content()
                self.server.interfere = lambda method, path, part=part: method == "PUT" and part in path and 503
                self.refuses("the server answered 503.*run the workflow again", "publish", "--version", version, self.dist())
                self.server.interfere = None
                if part != "linux/arm64/echopost-latest":
                    after = self.content()
                    self.assertFalse([key for key in after if "latest" in key and after[key] != before.get(key)])
                self.publishes("--version", version, self.dist())
                self.assert_whole(version, "one")
                self.assert_latest("one")

    def test_reads_that_fail_write_nothing(self):
        with mock.patch.object(publish, "TRIES", 1):
            for status in (500, 502, 504, 418):
                self.server.interfere = lambda method, path, status=status: method == "GET" and status
                self.refuses(f"could not get .* {status}", "publish", "--version", "v1.3.0", self.dist())
                self.refuses(f"could not get .* {status}", "check", "--version", "v1.3.0")
        self.assertEqual(self.server.puts, [])

    def test_a_passing_failure_is_not_noticed(self):
        failed = set()

        def interfere(method, path):
            if "linux/amd64" in path and (method, path) not in failed:
                failed.add((method, path))
                return 503
            return None

        with mock.patch("botocore.retries.standard.ExponentialBackoff.delay_amount", return_value=0):
            self.server.interfere = interfere
            self.publishes("--version", "v1.3.0", self.dist())
        self.assertGreater(len(failed), 5)
        self.assert_whole("v1.3.0", "one")
        self.assert_latest("one")

    def test_a_write_whose_answer_was_lost_counts(self):
        lost = set()

        def lose(method, path):
            if method == "PUT" and path not in lost:
                lost.add(path)
                return 500
            return None

        with mock.patch("botocore.retries.standard.ExponentialBackoff.delay_amount", return_value=0):
            self.server.lose_answer = lose
            self.publishes("--version", "v1.3.0", self.dist())
        self.server.lose_answer = None
        self.assertEqual(len(lost), WRITES)
        self.assert_whole("v1.3.0", "one")
        self.assert_latest("one")

    def test_a_server_that_is_not_there_is_an_error(self):
        with mock.patch.object(publish, "TRIES", 1):
            self.refuses("EndpointConnectionError.*R2_ENDPOINT", "check", "--version", "v1.3.0", R2_ENDPOINT="http://127.0.0.1:9")

    def test_the_program_as_the_workflow_runs_it(self):
        def run(*arguments, **environment):
            return subprocess.run(
                [sys.executable, publish.__file__, *arguments],
                env={**self.environment, "PATH": os.environ["PATH"], **environment},
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )

        done = run("publish", "--version", "v1.3.0", self.dist())
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertTrue(done.stdout.endswith(f"v1.3.0 (commit {COMMIT}) is published.\n"))
        failed = run("check", R2_BUCKET="nowhere")
        self.assertEqual((failed.returncode, failed.stdout), (1, ""))
        self.assertRegex(failed.stderr, r"^publish: there is no bucket 'nowhere'.*\n$")


if __name__ == "__main__":
    unittest.main()
