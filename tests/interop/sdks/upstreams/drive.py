"""Google Drive v3: files.list, get, alt=media, create by metadata, by multipart and by a resumable session (308 and Range)."""

import email
import json
import re

from .base import Answer, Api


def error(status, reason, message):
    detail = {"message": message, "domain": "global", "reason": reason}
    return Answer(status, {"error": {"code": status, "message": message, "errors": [detail]}})


class Drive(Api):
    links = "https://www.googleapis.com"

    def refuse(self, request):
        answer = error(401, "authError", "Request had invalid authentication credentials.")
        answer.headers["WWW-Authenticate"] = 'Bearer realm="https://accounts.google.com/", error="invalid_token"'
        return answer

    def answer(self, request):
        files = self.store.setdefault(request.user, {f"photo-{n}": (f"{request.user}-{n}.jpg", f"picture {n} of {request.user}".encode()) for n in range(5)})
        if request.path == "/upload/drive/v3/files":
            return self.upload(request, files)
        if request.path == "/drive/v3/files" and request.method == "POST":
            return self.created(files, request.json(), b"")
        if request.path == "/drive/v3/files":
            size, start = int(request.query.get("pageSize", 100)), int(request.query.get("pageToken", 0))
            ids = list(files)[start : start + size]
            page = {"kind": "drive#fileList", "files": [described(id, files[id]) for id in ids]}
            if start + size < len(files):
                page["nextPageToken"] = str(start + size)
            return Answer(200, page)
        id = request.path.removeprefix("/drive/v3/files/")
        if id == "busy":
            return error(429, "rateLimitExceeded", "Rate Limit Exceeded")
        if id not in files:
            return error(404, "notFound", f"File not found: {id}.")
        if request.query.get("alt") == "media":
            return ranged(request, files[id][1])
        return Answer(200, described(id, files[id]))

    def upload(self, request, files):
        kind = request.query["uploadType"]
        if kind == "multipart":
            parts = email.message_from_bytes(b"Content-Type: " + request.headers["Content-Type"].encode() + b"\r\n\r\n" + request.body).get_payload()
            return self.created(files, json.loads(parts[0].get_payload()), parts[1].get_payload(decode=True))
        if "upload_id" not in request.query:
            id = f"{request.user}-session-{len(self.store)}"
            self.store[id] = (request.json(), bytearray())
            return Answer(200, b"", Location=f"{self.links}/upload/drive/v3/files?uploadType=resumable&upload_id={id}")
        if not request.query["upload_id"].startswith(f"{request.user}-"):
            return error(404, "notFound", "Upload session not found.")
        about, got = self.store[request.query["upload_id"]]
        first, _, total = re.match(r"bytes (\d+)-(\d+)/(\d+|\*)", request.headers["Content-Range"]).groups()
        assert int(first) == len(got)
        got += request.body
        if total == "*" or len(got) < int(total):
            return Answer(308, b"", Range=f"bytes=0-{len(got) - 1}")
        return self.created(files, about, bytes(got))

    def created(self, files, about, content):
        id = f"made-{len(files)}"
        files[id] = (about["name"], content)
        return Answer(200, described(id, files[id]))


def described(id, file):
    return {"kind": "drive#file", "id": id, "name": file[0], "mimeType": "image/jpeg", "size": str(len(file[1]))}


def ranged(request, content):
    asked = re.match(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
    if not asked:
        return Answer(200, content, Content_Type="image/jpeg")
    first = int(asked[1])
    last = min(int(asked[2] or len(content)), len(content) - 1)
    return Answer(206, content[first : last + 1], Content_Type="image/jpeg", Content_Range=f"bytes {first}-{last}/{len(content)}")
