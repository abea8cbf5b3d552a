"""google-api-python-client: Drive v3."""

import io

import httplib2
from common import ATTACHE, GONE, for_each_user, raises
from googleapiclient.discovery import build
from googleapiclient.errors import HttpError
from googleapiclient.http import MediaInMemoryUpload, MediaIoBaseDownload, MediaIoBaseUpload


# docs: begin
class AttacheHttp(httplib2.Http):
    def __init__(self, end_user):
        super().__init__()
        self.end_user = end_user
        self.redirect_codes -= {308}  # Drive's word for the next part of an upload

    def request(self, uri, method="GET", body=None, headers=None, **more):
        uri = uri.replace("https://www.googleapis.com/", f"{ATTACHE}/google/")
        return super().request(uri, method, body, {**(headers or {}), "X-End-User": self.end_user}, **more)


def drive_of(end_user):
    return build("drive", "v3", http=AttacheHttp(end_user), static_discovery=True)


# Without uploads, the endpoint can be set instead. The library sends those to `https://` and the host alone.
def drive_reader_of(end_user):
    endpoint = {"api_endpoint": f"{ATTACHE}/google/drive/v3/"}
    return build("drive", "v3", http=AttacheHttp(end_user), client_options=endpoint, static_discovery=True)
# docs: end


def test(user, login):
    files = drive_of(user).files()
    names, asked = [], files.list(pageSize=2, fields="nextPageToken, files(id, name)")
    while asked is not None:
        page = asked.execute()
        names += [file["name"] for file in page["files"]]
        asked = files.list_next(asked, page)
    assert names == [f"{login}-{n}.jpg" for n in range(5)], names

    assert files.get(fileId="photo-1").execute()["name"] == f"{login}-1.jpg"
    assert drive_reader_of(user).files().list(pageSize=1).execute()["files"][0]["name"] == f"{login}-0.jpg"
    assert files.get_media(fileId="photo-3").execute() == f"picture 3 of {login}".encode()
    sink = io.BytesIO()
    download = MediaIoBaseDownload(sink, files.get_media(fileId="photo-2"), chunksize=7)
    done, chunks = False, 0
    while not done:
        _, done = download.next_chunk()
        chunks += 1
    assert sink.getvalue() == f"picture 2 of {login}".encode() and chunks > 1

    assert files.create(body={"name": "empty"}).execute()["size"] == "0"
    made = files.create(body={"name": "small.jpg"}, media_body=MediaInMemoryUpload(b"small" * 20, "image/jpeg")).execute()
    assert files.get_media(fileId=made["id"]).execute() == b"small" * 20
    content = bytes(range(256)) * 4096  # 1 MiB
    media = MediaIoBaseUpload(io.BytesIO(content), "image/jpeg", chunksize=256 * 1024, resumable=True)
    asked, made, chunks = files.create(body={"name": "large.jpg"}, media_body=media), None, 0
    while made is None:
        _, made = asked.next_chunk()
        chunks += 1
    assert chunks == 4 and files.get_media(fileId=made["id"]).execute() == content

    error = raises(HttpError, lambda: files.get(fileId="nothing").execute())
    assert (error.status_code, error.reason) == (404, "File not found: nothing."), error
    error = raises(HttpError, lambda: files.get(fileId="busy").execute())
    assert (error.status_code, error.error_details[0]["reason"]) == (429, "rateLimitExceeded"), error
    error = raises(HttpError, lambda: drive_of(GONE).files().list().execute())
    assert (error.status_code, error.error_details[0]["reason"]) == (401, "authError"), error


for_each_user(test)
