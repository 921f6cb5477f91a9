"""The main server as an ASGI application, for uvicorn, which chunks an answer
that names no length."""

from journal import take


async def application(scope, receive, send):
    if scope["type"] != "http":
        return
    body = b""
    more = scope["method"] == "POST"
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    if scope["method"] == "POST":
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        take(body, headers["idempotency-key"], scope["client"][1])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(3):
        await send({"type": "http.response.body", "body": b"x" * 9, "more_body": True})
    await send({"type": "http.response.body", "body": b"end"})
