"""Slack's Web API: form posts, errors with status 200, pages by cursor, 429 with `Retry-After`, and an upload to a URL of another host."""

from .base import Answer, Api

UPLOAD = "/upload/v1/abc"


class Slack(Api):
    def refuse(self, request):
        return Answer(200, {"ok": False, "error": "invalid_auth"})

    def answer(self, request):
        if request.path == UPLOAD:
            self.store["uploaded"] = request.body
            return Answer(200, b"OK - 12", Content_Type="text/plain")
        form = request.form() if "urlencoded" in request.headers.get("Content-Type", "") else {}
        call = request.path.removeprefix("/api/")
        if call == "auth.test":
            return Answer(200, {"ok": True, "user": request.user})
        if call == "conversations.list":
            start = int(form.get("cursor") or 0)
            more = str(start + 2) if start + 2 < 5 else ""
            channels = [{"id": f"C{n}", "name": f"{request.user}-{n}"} for n in range(start, min(start + 2, 5))]
            return Answer(200, {"ok": True, "channels": channels, "response_metadata": {"next_cursor": more}})
        if call == "chat.postMessage" and form["channel"] == "C404":
            return Answer(200, {"ok": False, "error": "channel_not_found"})
        if call == "chat.postMessage":
            return Answer(200, {"ok": True, "channel": form["channel"], "ts": "1.1", "message": {"text": form["text"], "username": request.user}})
        if call == "users.list":
            return Answer(429, {"ok": False, "error": "ratelimited"}, Retry_After="30")
        if call == "files.getUploadURLExternal":
            return Answer(200, {"ok": True, "upload_url": f"https://files.slack.com{UPLOAD}", "file_id": "F1"})
        if call == "files.completeUploadExternal":
            return Answer(200, {"ok": True, "files": [{"id": "F1", "title": f"of {request.user}"}]})
        return Answer(200, {"ok": False, "error": "unknown_method"})
