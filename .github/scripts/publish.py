"""Publishes EchoPost's binaries to the downloads bucket (Cloudflare R2, S3 API).

    publish.py check [--suffix S]            what is there; a wrong suffix fails early
    publish.py publish [--suffix S] [DIST]   publish what DIST holds

DIST holds `<os>-<arch>/echopost` and `<os>-<arch>/echopost.cdx.json` for each of
the four platforms. The bucket gets, under the prefix:

    sets/echopost-<version>.tar              everything below in one object
    <os>/<arch>/echopost-<version>           the binary
    <os>/<arch>/echopost-<version>.sha256    for `sha256sum -c`
    <os>/<arch>/echopost-<version>.cdx.json  the SBOM (CycloneDX)
    <os>/<arch>/echopost-latest[.sha256]     what the SDK downloads

A version is immutable, and publishing it can be stopped anywhere. The set is put
first, in one write that fails when there is one: from then on the bytes of the
version are decided, and whoever runs next completes it from the set, whatever a
new build would give. Then come the versioned files, each put only where there is
none. They are read back; then `latest` moves, by comparing ETags, and never to an
older version.

A snapshot (`--suffix`) is a name that moves, like a branch: publishing it again
replaces its files. It never touches `latest` nor any version, since a version
has no suffix.
"""

import argparse
import hashlib
import io
import os
import re
import sys
import tarfile
from pathlib import Path

from bucket import Bucket, Refusal

ROOT = Path(__file__).resolve().parents[2]
PLATFORMS = ("linux/amd64", "linux/arm64", "darwin/amd64", "darwin/arm64")
MOVES = 5  # tries of one move of `latest` against other publishers
FOR_EVER = "public, max-age=31536000, immutable"
NOT_CACHED = "no-cache"  # what moves is asked for again, so that no cache holds it back


# ---- Names -------------------------------------------------------------------


def parse_version(text):
    """`v1.3.0` as numbers that compare; no suffix, so that no snapshot can have the name of a version."""
    match = re.fullmatch(r"v(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})", text)
    if not match:
        raise Refusal(f"VERSION is {text!r}: it must be like v1.3.0")
    return tuple(int(number) for number in match.groups())


def check_suffix(text):
    """No dot, or `x.sha256` would be the checksum of `x`."""
    if text == "latest" or len(text) > 40 or not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", text):
        raise Refusal(
            f"the suffix is {text!r}: it must be words of a-z and 0-9 joined by single dashes, "
            "40 characters at most, and not 'latest'"
        )
    return text


# ---- What is published -------------------------------------------------------


def read_files(dist, name):
    """The files of DIST by the keys they are published under."""
    files = {}
    for platform in PLATFORMS:
        folder = Path(dist) / platform.replace("/", "-")
        for source, extension in (("echopost", ""), ("echopost.cdx.json", ".cdx.json")):
            try:
                data = (folder / source).read_bytes()
            except OSError as error:
                raise Refusal(f"{folder / source}: {error.strerror}: all four platforms must be built first") from error
            if not data:
                raise Refusal(f"{folder / source} is empty")
            files[f"{platform}/echopost-{name}{extension}"] = data
        binary = f"{platform}/echopost-{name}"
        files[f"{binary}.sha256"] = checksum_line(files[binary], f"echopost-{name}")
    return files


def checksum_line(data, name):
    return f"{hashlib.sha256(data).hexdigest()}  {name}\n".encode()


def pack(files):
    """One tar: the same files give the same bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in sorted(files):
            member = tarfile.TarInfo(name)
            member.size = len(files[name])
            member.mode = 0o644
            tar.addfile(member, io.BytesIO(files[name]))
    return out.getvalue()


def unpack(data, version, key):
    """The files of a set, which must be whole."""
    files = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for member in tar:
                files[member.name] = tar.extractfile(member).read()
    except (tarfile.TarError, AttributeError) as error:
        raise Refusal(f"{key} is no set of files ({error}): raise VERSION, and publish that") from error
    binaries = [f"{platform}/echopost-{version}" for platform in PLATFORMS]
    sums = {f"{name}.sha256": checksum_line(files.get(name, b""), f"echopost-{version}") for name in binaries}
    expected = {*binaries, *sums, *(f"{name}.cdx.json" for name in binaries)}
    if files.keys() != expected or any(files[name] != line for name, line in sums.items()):
        raise Refusal(f"{key} does not hold the files of {version}, whole: raise VERSION, and publish that")
    return files


# ---- A version ---------------------------------------------------------------


class Version:
    """One version in the bucket: what it consists of, what of it is there, and the rest of the way."""

    def __init__(self, bucket, name):
        self.bucket = bucket
        self.name = name
        self.number = parse_version(name)
        self.set_key = f"sets/echopost-{name}.tar"
        self.files = None
        self.commit = None

    def load_set(self):
        """False when the version has no set yet."""
        there = self.bucket.get(self.set_key)
        if there is None:
            return False
        self.files = unpack(there.data, self.name, self.set_key)
        self.commit = there.metadata.get("commit", "?")
        return True

    def metadata(self):
        return {"version": self.name, "commit": self.commit}

    def missing(self):
        """The keys that are not there yet. One with other bytes is a Refusal, before anything is written."""
        missing = []
        for key, data in self.files.items():
            there = self.bucket.get(key)
            if there is None:
                missing.append(key)
            elif there.data != data:
                raise Refusal(
                    f"{key} is there with other bytes than {self.name} was built with: "
                    "a version is never overwritten; raise VERSION, and publish that"
                )
        return missing

    def behind(self):
        """The `latest` keys that are still to be moved."""
        return [key for key in self.latest() if self.step(key, self.bucket.get(key)) is not None]

    def latest(self):
        """What `latest` is to be, once the versioned files are there."""
        files = {}
        for platform in PLATFORMS:
            data = self.files[f"{platform}/echopost-{self.name}"]
            files[f"{platform}/echopost-latest"] = data
            files[f"{platform}/echopost-latest.sha256"] = checksum_line(data, "echopost-latest")
        return files

    def step(self, key, there):
        """The condition under which `latest` may move from what is there; None: it stays."""
        if there is None:
            return {"IfNoneMatch": "*"}
        try:
            number = parse_version(there.metadata.get("version", ""))
        except Refusal as error:
            raise Refusal(
                f"{key} does not say which version it is, so it was put there by other means: "
                "set its metadata 'version' (v0.0.0 for one from before), and run the workflow again"
            ) from error
        if number == self.number and there.data != self.latest()[key]:
            raise Refusal(f"{key} says that it is {self.name}, and has other bytes: delete it, and run the workflow again")
        return None if number >= self.number else {"IfMatch": there.etag}

    def publish(self, dist, commit):
        """True when something was missing."""
        fresh = not self.load_set()
        if fresh:
            if dist is None:
                raise Refusal(f"{self.name} is not there, and no binaries were given")
            self.files, self.commit = read_files(dist, self.name), commit
        missing, behind = self.missing(), self.behind()
        if fresh and not self.put_set():
            missing = self.missing()  # another was faster: its bytes are those of the version
        if dist is not None and self.commit != commit:
            raise Refusal(f"{self.name} belongs to commit {self.commit}, not to {commit}: raise VERSION, and publish that")
        for key in missing:
            if self.bucket.put(key, self.files[key], self.metadata(), FOR_EVER, IfNoneMatch="*"):
                print(f"{key}: published")
        if self.missing():
            raise Refusal(f"{self.name} was not there when read back: run the workflow again")
        for key, data in self.latest().items():
            self.move(key, data)
        return bool(missing or behind)

    def put_set(self):
        """False when there was one already, which is loaded then."""
        if self.bucket.put(self.set_key, pack(self.files), self.metadata(), FOR_EVER, IfNoneMatch="*"):
            print(f"{self.set_key}: published")
            return True
        if not self.load_set():
            raise Refusal(f"{self.set_key} came and went: somebody deletes in the bucket; run the workflow again")
        return False

    def move(self, key, data):
        for _ in range(MOVES):
            condition = self.step(key, self.bucket.get(key))
            if condition is None:
                print(f"{key}: stays, it is {self.name} or newer")
                return
            if self.bucket.put(key, data, self.metadata(), NOT_CACHED, **condition):
                print(f"{key}: is {self.name} now")
                return
        raise Refusal(f"{key} was moved by others {MOVES} times meanwhile: run the workflow again")

    def state(self):
        """`absent`: to be built; `partial`: to be completed from its set; `complete`."""
        if self.load_set():
            return "partial" if self.missing() or self.behind() else "complete"
        for platform in PLATFORMS:
            key = f"{platform}/echopost-{self.name}"
            if self.bucket.get(key):
                raise Refusal(f"{key} is there without {self.set_key}: raise VERSION, and publish that")
        return "absent"


def publish_snapshot(bucket, name, dist, commit):
    files = read_files(dist, name)
    metadata = {"version": name, "commit": commit}
    for key, data in files.items():
        bucket.put(key, data, metadata, NOT_CACHED)
        print(f"{key}: published")
    for key, data in files.items():
        there = bucket.get(key)
        if there is None or there.data != data:
            raise Refusal(f"{key} was replaced meanwhile: another run publishes {name}; run the workflow again")


# ---- Command line ------------------------------------------------------------


def tell(line, **outputs):
    """To the log, the job's summary and its outputs."""
    print(line)
    for variable, lines in (
        ("GITHUB_STEP_SUMMARY", [line]),
        ("GITHUB_OUTPUT", [f"{name}={value}" for name, value in outputs.items()]),
    ):
        if os.environ.get(variable):
            with open(os.environ[variable], "a", encoding="utf-8") as file:
                file.writelines(f"{text}\n" for text in lines)


def check(name, suffix):
    parse_version(name)
    if suffix is not None:
        tell(f"echopost-{name}-{check_suffix(suffix)} is going to be published.")
        return
    version = Version(Bucket(os.environ), name)
    state = version.state()
    meaning = {
        "absent": f"{name} is new: it is built and published.",
        "partial": f"{name} is there in part: it is completed from its set.",
        "complete": f"{name} is published already, nothing is done. To publish, change VERSION and Cargo.toml.",
    }
    tell(meaning[state], state=state, commit=version.commit or "")


def publish(name, suffix, dist):
    parse_version(name)
    if suffix is not None:
        check_suffix(suffix)
    commit = os.environ.get("GITHUB_SHA", "")
    if not re.fullmatch(r"[0-9a-f]{40}", commit):
        raise Refusal("GITHUB_SHA must be the commit that was built")
    bucket = Bucket(os.environ)
    if suffix is None:
        version = Version(bucket, name)
        done = "is published" if version.publish(dist, commit) else "was published already, nothing was missing"
        tell(f"{name} (commit {version.commit}) {done}.", commit=version.commit)
    elif dist is None:
        raise Refusal("a snapshot needs the folder of its binaries")
    else:
        publish_snapshot(bucket, f"{name}-{suffix}", dist, commit)
        tell(f"{name}-{suffix} (commit {commit}) is published; latest was not touched.")


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Publishes EchoPost's binaries.", allow_abbrev=False)
    parser.add_argument("command", choices=("check", "publish"))
    parser.add_argument("--suffix", help="publish a snapshot of this name")
    parser.add_argument("--version", default=(ROOT / "VERSION").read_text(encoding="utf-8").strip())
    parser.add_argument("dist", nargs="?", help="folder of the binaries")
    given = parser.parse_intermixed_args(arguments)
    try:
        if given.command == "check":
            check(given.version, given.suffix)
        else:
            publish(given.version, given.suffix, given.dist)
    except Refusal as refusal:
        print(f"publish: {refusal}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
