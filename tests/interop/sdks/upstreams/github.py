"""GitHub REST: pages told by `Link` with absolute URLs, an issue made, raw bytes, 404, a secondary limit."""

from .base import Answer, Api

DOCS = "https://docs.github.com/rest"


class GitHub(Api):
    def refuse(self, request):
        return Answer(401, {"message": "Bad credentials", "documentation_url": DOCS, "status": "401"})

    def answer(self, request):
        if request.path == "/user/repos":
            page, last = int(request.query.get("page", 1)), 3
            link = f'<https://api.github.com/user/repos?per_page=2&page={page + 1}>; rel="next", <https://api.github.com/user/repos?per_page=2&page={last}>; rel="last"'
            repos = [{"id": 10 * page + n, "name": f"{request.user}-{page}-{n}"} for n in range(2)]
            return Answer(200, repos, **({"Link": link} if page < last else {}))
        if request.path == f"/repos/{request.user}/photos/issues" and request.method == "POST":
            return Answer(201, {"number": 7, "title": request.json()["title"], "user": {"login": request.user}}, Location=f"https://api.github.com/repos/{request.user}/photos/issues/7")
        if request.path == f"/repos/{request.user}/photos/contents/a.bin":
            assert "raw" in request.headers["Accept"]
            return Answer(200, bytes(range(256)), Content_Type="application/vnd.github.raw")
        if request.path == f"/repos/{request.user}/busy":
            return Answer(429, {"message": "You have exceeded a secondary rate limit.", "documentation_url": DOCS}, Retry_After="60", X_RateLimit_Remaining="0")
        return Answer(404, {"message": "Not Found", "documentation_url": DOCS, "status": "404"})
