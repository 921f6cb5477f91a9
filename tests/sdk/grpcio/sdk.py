"""Sends records as the Python SDK does: a new channel for each, no deadline.

Reads a JSON object a line (json_data, pipelines, api_key) from stdin, prints a
JSON line for each answer. The messages are coded by hand, so that grpcio is all
that has to be installed.
"""

import json
import sys

import grpc

METHOD = "/logagent.LogAgent/SendLog"


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def text_field(number, text):
    data = text.encode()
    return varint(number << 3 | 2) + varint(len(data)) + data


def encode_request(record):
    return b"".join(
        [text_field(1, record["json_data"])]
        + [text_field(2, name) for name in record["pipelines"]]
        + [text_field(3, record["api_key"])]
    )


def decode_response(data):
    """LogResponse{bool success=1; string message=2}."""
    success, message, at = False, "", 0
    while at < len(data):
        tag, value = data[at], data[at + 1]
        at += 2
        if tag == 1 << 3:
            success = bool(value)
        elif tag == 2 << 3 | 2 and value < 0x80:
            message, at = data[at : at + value].decode(), at + value
        else:
            raise ValueError(f"no LogResponse: {data!r}")
    return {"success": success, "message": message}


def send(target, record):
    with grpc.insecure_channel(target) as channel:
        send_log = channel.unary_unary(
            METHOD,
            request_serializer=encode_request,
            response_deserializer=decode_response,
        )
        try:
            return send_log(record)
        except grpc.RpcError as error:
            return {"code": error.code().name, "message": error.details()}


def main():
    (target,) = sys.argv[1:]
    for line in sys.stdin.buffer:
        print(json.dumps(send(target, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
