"""Dropbox API v2: RPC with JSON, content up and down with `Dropbox-API-Arg`, upload sessions, 409 with an `.tag`, 429."""

import json

from .base import Answer, Api


class Dropbox(Api):
    def refuse(self, request):
        return Answer(401, {"error_summary": "invalid_access_token/..", "error": {".tag": "invalid_access_token"}})

    def answer(self, request):
        call = request.path.removeprefix("/2/")
        files = self.store.setdefault(request.user, {f"/{request.user}-{n}.jpg": f"picture {n} of {request.user}".encode() for n in range(3)})
        arg = json.loads(request.headers["Dropbox-API-Arg"]) if "Dropbox-API-Arg" in request.headers else request.json()
        if call == "files/list_folder" and arg["path"] == "/busy":
            return Answer(429, {"error_summary": "too_many_requests/..", "error": {"reason": {".tag": "too_many_requests"}, "retry_after": 3}}, Retry_After="3")
        if call == "files/list_folder":
            return self.page(files, 0)
        if call == "files/list_folder/continue":
            return self.page(files, int(arg["cursor"]))
        if call == "files/get_metadata":
            return not_found()
        if call == "files/download":
            if arg["path"] not in files:
                return not_found()
            content = files[arg["path"]]
            return Answer(200, content, Content_Type="application/octet-stream", Dropbox_API_Result=json.dumps(about(arg["path"], content)))
        if call == "files/upload":
            files[arg["path"]] = request.body
            return Answer(200, about(arg["path"], request.body))
        if call == "files/upload_session/start":
            self.store[request.user, "session"] = request.body
            return Answer(200, {"session_id": f"session-of-{request.user}"})
        if call == "files/upload_session/append_v2":
            assert arg["cursor"]["offset"] == len(self.store[request.user, "session"])
            self.store[request.user, "session"] += request.body
            return Answer(200, b"null", Content_Type="application/json")
        if call == "files/upload_session/finish":
            path = arg["commit"]["path"]
            files[path] = self.store.pop((request.user, "session")) + request.body
            return Answer(200, about(path, files[path]))
        return Answer(400, f"Unknown API function: {call!r}".encode(), Content_Type="text/plain")

    def page(self, files, start):
        entries = [{".tag": "file", **about(path, content)} for path, content in list(files.items())[start : start + 2]]
        return Answer(200, {"entries": entries, "cursor": str(start + 2), "has_more": start + 2 < len(files)})


def not_found():
    return Answer(409, {"error_summary": "path/not_found/..", "error": {".tag": "path", "path": {".tag": "not_found"}}})


def about(path, content):
    when = "2026-01-01T00:00:00Z"
    return {"name": path[1:], "id": "id:" + "a" * 22, "path_lower": path, "path_display": path, "client_modified": when, "server_modified": when, "rev": "0" * 15, "size": len(content)}
