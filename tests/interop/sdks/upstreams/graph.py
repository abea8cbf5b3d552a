"""Microsoft Graph v1.0: messages in pages whose links are absolute, a file's content, an upload session, a limit that passes."""

from .base import Answer, Api


def error(status, code, message, **headers):
    return Answer(status, {"error": {"code": code, "message": message, "innerError": {"request-id": "1", "date": "2026-01-01T00:00:00"}}}, **headers)


class Graph(Api):
    def refuse(self, request):
        return error(401, "InvalidAuthenticationToken", "CompactToken parsing failed.", WWW_Authenticate='Bearer realm=""')

    def answer(self, request):
        path = request.path.removeprefix("/v1.0")
        if path == "/me":
            return Answer(200, {"@odata.context": f"https://graph.microsoft.com/v1.0/$metadata#users/$entity", "displayName": request.user})
        if path == "/me/messages" and request.method == "POST":
            return Answer(201, {"id": "made", "subject": request.json()["subject"], "from": request.user})
        if path == "/me/messages":
            start = int(request.query.get("$skiptoken", 0))
            page = {"value": [{"id": str(n), "subject": f"{request.user} {n}"} for n in range(start, min(start + 2, 5))]}
            if start + 2 < 5:
                page["@odata.nextLink"] = f"https://graph.microsoft.com/v1.0/me/messages?$skiptoken={start + 2}"
            return Answer(200, page)
        if path == "/me/drive/root:/limited.txt" and self.first(request.user, "limited"):
            return error(429, "TooManyRequests", "Too many requests", Retry_After="1")
        if path == "/me/drive/root:/limited.txt":
            return Answer(200, {"name": "limited.txt"})
        if path == "/me/drive/root:/photo.jpg:/content" and request.method == "PUT":
            self.store[request.user] = request.body
            return Answer(201, {"name": "photo.jpg", "size": len(request.body)})
        if path == "/me/drive/root:/photo.jpg:/content":
            return Answer(200, self.store[request.user], Content_Type="application/octet-stream")
        return error(404, "itemNotFound", "The resource could not be found.")
