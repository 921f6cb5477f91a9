"""The promises of publish.py on snapshots, and on a server or settings that fail."""

import os
import subprocess
import sys
import unittest
from unittest import mock

import bucket
import publish
from publish_case import COMMIT, WRITES, Case


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
        for name in bucket.ENVIRONMENT:
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
            with self.subTest(part=part), mock.patch.object(bucket, "TRIES", 2):
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
        with mock.patch.object(bucket, "TRIES", 1):
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
        with mock.patch.object(bucket, "TRIES", 1):
            self.refuses("EndpointConnectionError.*R2_ENDPOINT", "check", "--version", "v1.3.0", R2_ENDPOINT="http://127.0.0.1:9")

    def test_the_program_as_the_workflow_runs_it(self):
        def run(*arguments, **environment):
            return subprocess.run(
                [sys.executable, publish.__file__, *arguments],
                env={**self.environment, "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", **environment},
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
