"""Publishes EchoPost's binaries to the downloads bucket (Cloudflare R2, S3 API).

    publish.py check [--suffix S]         is VERSION published? No secret is needed
    publish.py publish [--suffix S] DIST  publish `<os>-<arch>/echopost[.cdx.json]` of DIST

The bucket gets, below the prefix and `<os>/<arch>/`: echopost-<version>, with .cdx.json
(SBOM) and .sha256 before it, and then echopost-latest[.sha256]. A version is immutable:
each file is put only where there is none, and one that is there must be the very same,
of the same commit; all are compared before the first write. Builds are reproducible, so
whatever stops a publish, the next run completes it. Once all is there, `latest` moves, by
comparing ETags, and never to an older version. A snapshot (`--suffix`) is a name that
moves: publishing it again replaces its files. It never touches `latest` nor any version.
"""

import argparse
import contextlib
import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import boto3
import urllib3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

ROOT = Path(__file__).resolve().parents[2]
PLATFORMS = ("linux/amd64", "linux/arm64", "darwin/amd64", "darwin/arm64")
SETTINGS = {  # what each must be like
    "R2_ENDPOINT": r"(https://[^/?#\s]+|http://127\.0\.0\.1:\d+)/?",  # its page shows it with the bucket's name behind
    "R2_BUCKET": r"\S+",
    "R2_ACCESS_KEY_ID": r"\S+",
    "R2_SECRET_ACCESS_KEY": r"\S+",
    "DOWNLOADS_PREFIX": r"([a-z0-9._-]*[a-z0-9][a-z0-9._-]*/)+",
    "DOWNLOADS_URL": r"(https://[^/?#\s]+|http://127\.0\.0\.1:\d+/[a-z0-9-]+)/?",  # the prefix comes behind it
}
TRIES = 5  # of one request
FOR_EVER = "public, max-age=31536000, immutable"
NOT_CACHED = "no-cache"  # what moves is asked for again, so that no cache holds it back
TYPES = {"": "application/octet-stream", ".sha256": "text/plain", ".json": "application/vnd.cyclonedx+json"}
AGAIN = "run the workflow again: it completes what is there"


class Refusal(Exception):
    """Why nothing more is done: one line that names the thing and the remedy."""


def settings(*names):
    values = {name: os.environ.get(name, "").strip() for name in names}
    for name, value in values.items():
        if not re.fullmatch(SETTINGS[name], value):
            raise Refusal(f"{name} is {'wrong' if value else 'not set'}: see .github/RELEASING.md")
    return values.values()


class Bucket:
    """The bucket below the prefix. That nothing is there and that a condition does not hold are answers."""

    def __init__(self):
        endpoint, self.name, key, secret, self.prefix = settings(*list(SETTINGS)[:5])
        config = Config(
            retries={"mode": "standard", "total_max_attempts": TRIES},
            s3={"addressing_style": "path"},
            connect_timeout=10,
            # R2 does not know the checksum trailers that boto3 adds by default.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        keys = {"aws_access_key_id": key, "aws_secret_access_key": secret}
        self.s3 = boto3.client("s3", endpoint_url=endpoint, region_name="auto", config=config, **keys)

    def get(self, key):
        """The object (Body, ETag, Metadata), or None."""
        return self._call(self.s3.get_object, "get", key)

    def put(self, key, data, metadata, cache, **condition):
        """False when the condition (IfNoneMatch, IfMatch) does not hold."""
        about = {"ContentType": TYPES.get(Path(key).suffix, TYPES[""]), "CacheControl": cache, "Metadata": metadata}
        done = self._call(self.s3.put_object, "put", key, Body=data, **about, **condition) is not None
        print(f"{key}: {'is' if done else 'was not made'} {metadata['version']}")
        return done

    def _call(self, operation, verb, key, **arguments):
        path = self.prefix + key
        try:
            answer = operation(Bucket=self.name, Key=path, **arguments)
            return {**answer, "Body": answer["Body"].read()} if "Body" in answer else answer
        except ClientError as error:
            code, status = error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
            if code in ("NoSuchKey", "PreconditionFailed", "ConditionalRequestConflict"):
                return None
            denied = "check R2_ACCESS_KEY_ID and R2_SECRET_ACCESS_KEY: they must read and write objects of the bucket"
            remedy = {"NoSuchBucket": "check R2_BUCKET and R2_ENDPOINT"}.get(code, denied if status in (401, 403) else AGAIN)
            raise Refusal(f"could not {verb} {path}: the server answered {status} ({code}); {remedy}") from error
        except BotoCoreError as error:
            raise Refusal(f"could not {verb} {path}: {type(error).__name__}; check R2_ENDPOINT, and {AGAIN}") from error


def numbers(version):
    """`v1.3.0` as numbers that compare; no suffix, so that no snapshot can have the name of a version."""
    if not re.fullmatch(r"v(0|[1-9]\d{0,8})(\.(0|[1-9]\d{0,8})){2}", version, re.ASCII):
        raise Refusal(f"VERSION is {version!r}: it must be like v1.3.0")
    return tuple(int(number) for number in version[1:].split("."))


def read_files(dist, name):
    """The files of DIST by the keys they are published under, and what `latest` is to be."""
    files, latest = {}, {}
    for platform in PLATFORMS:
        folder = Path(dist) / platform.replace("/", "-")
        try:
            sbom, binary = (folder / "echopost.cdx.json").read_bytes(), (folder / "echopost").read_bytes()
        except OSError as error:
            raise Refusal(f"{error.filename}: {error.strerror}: all four platforms must be built first") from error
        files[f"{platform}/echopost-{name}.cdx.json"] = sbom
        for place, title in ((files, f"echopost-{name}"), (latest, "echopost-latest")):
            place[f"{platform}/{title}.sha256"] = f"{hashlib.sha256(binary).hexdigest()}  {title}\n".encode()
            place[f"{platform}/{title}"] = binary
    return files, latest


def missing(bucket, files, commit):
    """The keys that are not there yet. One with other bytes, or of another commit, is a Refusal."""
    there = {key: bucket.get(key) for key in files}
    for key, found in there.items():
        other = found and found["Metadata"].get("commit")
        if found and (found["Body"], other) != (files[key], commit):
            remedy = "re-run the failed jobs of that commit's run, which keeps what it built, or raise VERSION"
            raise Refusal(f"{key} is there already, of commit {other}, and a version is never overwritten: {remedy}")
    return [key for key in files if there[key] is None]


def step(bucket, key, data, version):
    """The condition under which `latest` may move from what is there; None: it stays."""
    there = bucket.get(key)
    if there is None:
        return {"IfNoneMatch": "*"}
    with contextlib.suppress(Refusal):
        other = there["Metadata"].get("version", "")
        if numbers(other) != numbers(version) or there["Body"] == data:
            return None if numbers(other) >= numbers(version) else {"IfMatch": there["ETag"]}
    raise Refusal(f"{key} was put there by other means: set its metadata 'version' (v0.0.0), and run the workflow again")


def publish_version(bucket, name, dist, commit):
    (files, latest), metadata = read_files(dist, name), {"version": name, "commit": commit}
    absent = missing(bucket, files, commit)
    for key, data in latest.items():
        step(bucket, key, data, name)  # may refuse, before anything is written
    for key in absent:
        bucket.put(key, files[key], metadata, FOR_EVER, IfNoneMatch="*")
    if missing(bucket, files, commit):
        raise Refusal(f"{name} was not there when read back: run the workflow again")
    for key, data in latest.items():
        condition = step(bucket, key, data, name)
        if condition:
            bucket.put(key, data, metadata, NOT_CACHED, **condition)
    if any(step(bucket, key, data, name) for key, data in latest.items()):
        raise Refusal("latest was moved by others meanwhile: run the workflow again")


def publish_snapshot(bucket, name, dist, commit):
    files, _ = read_files(dist, name)
    for key, data in files.items():
        bucket.put(key, data, {"version": name, "commit": commit}, NOT_CACHED)
    if any((bucket.get(key) or {}).get("Body") != data for key, data in files.items()):
        raise Refusal(f"{name} was replaced meanwhile, by another run that publishes it: run the workflow again")


def is_published(name):
    """All binaries are public, and the tag, a publish's last step, is there (the checkout has all tags)."""
    retries = urllib3.Retry(TRIES, status_forcelist=(429, 500, 502, 503, 504), backoff_factor=0.5, raise_on_status=False)
    base, prefix = settings("DOWNLOADS_URL", "DOWNLOADS_PREFIX")
    answers = set()
    for platform in PLATFORMS:
        url = f"{base.rstrip('/')}/{prefix}{platform}/echopost-{name}"
        try:
            answer = urllib3.request("HEAD", url, retries=retries, timeout=30).status
        except urllib3.exceptions.HTTPError as error:
            answer = type(error).__name__
        answers.add(answer)
        if answer not in (200, 404):
            raise Refusal(f"could not ask for {url}: {answer}; check DOWNLOADS_URL, and run the workflow again")
    tag = ["git", "-C", ROOT, "rev-parse", "--quiet", "--verify", f"refs/tags/{name}"]
    return answers == {200} and subprocess.run(tag, stdout=subprocess.DEVNULL, check=False).returncode == 0


def tell(line, output=None):
    """To the log, the job's summary and its outputs."""
    print(line)
    for variable, text in (("GITHUB_STEP_SUMMARY", line), ("GITHUB_OUTPUT", output)):
        if text and os.environ.get(variable):
            with open(os.environ[variable], "a", encoding="utf-8") as file:
                file.write(f"{text}\n")


def run(command, name, suffix, dist):
    numbers(name)
    if suffix is not None:
        # No dot, or `x.sha256` would be the checksum of `x`.
        if not re.fullmatch(r"(?!latest$)(?=.{1,40}$)[a-z0-9]+(-[a-z0-9]+)*", suffix):
            raise Refusal(f"the suffix is {suffix!r}: it must be words of a-z and 0-9, joined by dashes, 40 characters at most")
        name = f"{name}-{suffix}"
    commit = os.environ.get("GITHUB_SHA", "")
    if command == "check" and suffix is None and is_published(name):
        tell(f"{name} is published, nothing is done. To publish, change VERSION and Cargo.toml.", "publish=false")
    elif command == "check":
        tell(f"{name} is going to be published.", "publish=true")
    elif dist is None or not re.fullmatch(r"[0-9a-f]{40}", commit):
        raise Refusal("publish needs the folder of the binaries, and in GITHUB_SHA the commit that they were built from")
    else:
        (publish_version if suffix is None else publish_snapshot)(Bucket(), name, dist, commit)
        tell(f"{name} (commit {commit}) is published.")


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Publishes EchoPost's binaries.", allow_abbrev=False)
    parser.add_argument("command", choices=("check", "publish"))
    parser.add_argument("--suffix", help="publish a snapshot of this name")
    parser.add_argument("--version", default=(ROOT / "VERSION").read_text(encoding="utf-8").strip())
    parser.add_argument("dist", nargs="?", help="folder of the binaries")
    given = parser.parse_intermixed_args(arguments)
    try:
        run(given.command, given.version, given.suffix, given.dist)
    except Refusal as refusal:
        sys.exit(f"publish: {refusal}")


if __name__ == "__main__":
    main()
