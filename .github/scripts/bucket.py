"""The downloads bucket (Cloudflare R2, S3 API), as publish.py sees it."""

import base64
import hashlib
import re
from pathlib import Path
from typing import NamedTuple

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

ENVIRONMENT = ("R2_ENDPOINT", "R2_BUCKET", "R2_ACCESS_KEY_ID", "R2_SECRET_ACCESS_KEY", "DOWNLOADS_PREFIX")
TRIES = 5  # of one request


class Refusal(Exception):
    """Why nothing more is done: one line that names the thing and the remedy."""


class Object(NamedTuple):
    data: bytes
    etag: str
    metadata: dict


class Bucket:
    """The bucket below the prefix. A refused condition is an answer; every other failure is a Refusal."""

    def __init__(self, environment):
        values = {name: environment.get(name, "").strip() for name in ENVIRONMENT}
        missing = [name for name, value in values.items() if not value]
        if missing:
            raise Refusal(f"not set: {', '.join(missing)}: see 'Releases' in README.md for the secrets and variables")
        self.endpoint, self.name, key, secret, self.prefix = values.values()
        # The bucket's page shows its URL with the bucket's name behind it: keys would begin with that.
        if not re.fullmatch(r"(https://[^/?#]+|http://127\.0\.0\.1:[0-9]+)/?", self.endpoint):
            raise Refusal("R2_ENDPOINT must be like https://<account>.r2.cloudflarestorage.com, without the bucket's name")
        if not re.fullmatch(r"([a-z0-9._-]*[a-z0-9][a-z0-9._-]*/)+", self.prefix):
            raise Refusal(f"DOWNLOADS_PREFIX is {self.prefix!r}: it must be a path that ends in '/', like echopost/")
        self.s3 = boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="auto",
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            config=Config(
                retries={"mode": "standard", "total_max_attempts": TRIES},
                s3={"addressing_style": "path"},
                connect_timeout=10,
                read_timeout=60,
                # R2 does not know the checksum trailers that boto3 adds by default.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    def get(self, key):
        """The object, or None."""
        answer = self._call("get_object", key, ("NoSuchKey",))
        return answer and Object(answer["Body"], answer["ETag"], answer["Metadata"])

    def put(self, key, data, metadata, cache, **condition):
        """False when the condition (IfNoneMatch, IfMatch) does not hold."""
        refused = ("PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey") if condition else ()
        answer = self._call(
            "put_object",
            key,
            refused,
            Body=data,
            ContentMD5=base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode(),
            ContentType=content_type(key),
            CacheControl=cache,
            Metadata=metadata,
            **condition,
        )
        return answer is not None

    def _call(self, operation, key, expected, **arguments):
        verb, path = operation.split("_")[0], self.prefix + key
        try:
            answer = getattr(self.s3, operation)(Bucket=self.name, Key=path, **arguments)
            return {**answer, "Body": answer["Body"].read()} if "Body" in answer else answer
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "?")
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            if code in expected:
                return None
            if code == "NoSuchBucket":
                raise Refusal(f"there is no bucket {self.name!r}: check R2_BUCKET and R2_ENDPOINT") from error
            if status in (401, 403):
                raise Refusal(
                    f"the server does not let us {verb} {path} ({code}): check R2_ACCESS_KEY_ID and "
                    "R2_SECRET_ACCESS_KEY; the token must be able to read and write objects of the bucket"
                ) from error
            raise Refusal(
                f"could not {verb} {path}: the server answered {status} ({code}); "
                "run the workflow again: it completes what is there"
            ) from error
        except BotoCoreError as error:
            raise Refusal(
                f"could not {verb} {path}: {type(error).__name__}; check R2_ENDPOINT, "
                "and run the workflow again: it completes what is there"
            ) from error


def content_type(key):
    kinds = {".sha256": "text/plain", ".json": "application/vnd.cyclonedx+json", ".tar": "application/x-tar"}
    return kinds.get(Path(key).suffix, "application/octet-stream")
