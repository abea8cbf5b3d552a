"""Upload sessions at the origin that Attaché knows the API by: Google Drive's, told by 200, and those of tus 1.0, told by 201."""

from .base import Answer
from .drive import Drive


class Sessions(Drive):
    @property
    def links(self):
        return self.origin

    def answer(self, request):
        if not request.path.startswith("/tus/files"):
            return super().answer(request)
        if request.method == "POST":
            self.store[request.user, "tus"] = bytearray()
            return Answer(201, b"", Location=f"{self.origin}/tus/files/{request.user}", Tus_Resumable="1.0.0")
        got = self.store[request.path.rsplit("/", 1)[1], "tus"]
        if request.method == "PATCH":
            assert int(request.headers["Upload-Offset"]) == len(got)
            got += request.body
            return Answer(204, b"", Upload_Offset=str(len(got)), Tus_Resumable="1.0.0")
        return Answer(200, b"", Upload_Offset=str(len(got)), Tus_Resumable="1.0.0")
