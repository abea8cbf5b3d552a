"""The Dropbox SDK. It builds `https://HOST/2/…` itself: a session sends that to Attaché."""

import dropbox
import requests
from common import ATTACHE, GONE, for_each_user, raises
from dropbox.exceptions import ApiError, AuthError, RateLimitError
from dropbox.files import CommitInfo, UploadSessionCursor, WriteMode


# docs: begin
class AttacheSession(requests.Session):
    def request(self, method, url, **more):
        for host in ("api", "content"):
            url = url.replace(f"https://{host}.dropboxapi.com/", f"{ATTACHE}/dropbox-{host}/")
        return super().request(method, url, **more)


def dropbox_of(end_user):
    session = AttacheSession()
    # The SDK insists on a token; what stands here is replaced.
    return dropbox.Dropbox("none", session=session, headers={"X-End-User": end_user}, max_retries_on_rate_limit=0)
# docs: end


def test(user, login):
    files = dropbox_of(user)
    page = files.files_list_folder("")
    names = [entry.name for entry in page.entries]
    while page.has_more:
        page = files.files_list_folder_continue(page.cursor)
        names += [entry.name for entry in page.entries]
    assert names == [f"{login}-{n}.jpg" for n in range(3)], names

    about, answer = files.files_download(f"/{login}-1.jpg")
    assert (about.name, answer.content) == (f"{login}-1.jpg", f"picture 1 of {login}".encode())
    content = bytes(range(256)) * 1000
    assert files.files_upload(content, "/grün.jpg", mode=WriteMode.overwrite).size == len(content)
    assert files.files_download("/grün.jpg")[1].content == content

    session = files.files_upload_session_start(b"a" * 70_000).session_id
    files.files_upload_session_append_v2(b"b" * 70_000, UploadSessionCursor(session, 70_000))
    made = files.files_upload_session_finish(b"c", UploadSessionCursor(session, 140_000), CommitInfo("/large.bin"))
    assert made.size == 140_001

    error = raises(ApiError, lambda: files.files_get_metadata("/nothing"))
    assert error.error.is_path() and error.error.get_path().is_not_found(), error
    error = raises(RateLimitError, lambda: files.files_list_folder("/busy"))
    assert error.backoff == 3, error
    raises(AuthError, lambda: dropbox_of(GONE).files_list_folder(""))


for_each_user(test)
