"""An API for plain HTTP clients: who am I, bytes up and down, pages by absolute link, statuses. It tells the client what came, but for the token."""

import hashlib

from .base import Answer, Api

BYTES = bytes(range(256)) * 4096


class Echo(Api):
    def refuse(self, request):
        return Answer(401, {"error": "invalid_token"}, WWW_Authenticate='Bearer error="invalid_token"')

    def answer(self, request):
        if request.path == "/api/me":
            return Answer(200, {"user": request.user, "method": request.method, "query": request.query, "headers": [name.lower() for name in request.headers]})
        if request.path == "/api/bytes":
            return Answer(200, BYTES, Content_Type="application/octet-stream", Digest=hashlib.sha256(BYTES).hexdigest())
        if request.path == "/api/upload":
            return Answer(201, {"user": request.user, "size": len(request.body), "sha256": hashlib.sha256(request.body).hexdigest()})
        if request.path == "/api/pages":
            page = int(request.query.get("page", 0))
            return Answer(200, {"items": [f"{request.user}-{page}"], "next": f"{self.origin}/api/pages?page={page + 1}" if page < 2 else None})
        if request.path == "/api/busy":
            return Answer(429, {"error": "rate_limited"}, Retry_After="7")
        return Answer(404, {"error": "not_found"})
