"""The promises of publish.py on versions, against a local S3 server (moto, which
honours If-None-Match and If-Match as R2 does; the first test says so)."""

import contextlib
import io
import unittest
from pathlib import Path
from unittest import mock

import publish
from bucket import ClientError
from publish_case import COMMIT, OTHER_COMMIT, WRITES, Case


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


class Versions(Case):
    def test_the_server_honours_the_conditions(self):
        s3, there = self.bucket.s3, {"Bucket": self.name, "Key": "k"}
        etag = s3.put_object(**there, Body=b"1", IfNoneMatch="*")["ETag"]
        for condition in ({"IfNoneMatch": "*"}, {"IfMatch": '"0"'}):
            with self.assertRaisesRegex(ClientError, "PreconditionFailed"):
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


if __name__ == "__main__":
    unittest.main()
