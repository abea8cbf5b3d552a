#!/usr/bin/env python3
"""PrintPixie: a web shop that prints the photos of its users' drives. It holds no OAuth token, client secret or OAuth library.

run.py starts it with everything that it needs. By itself: PRINTPIXIE_ADMIN_TOKEN=… app.py, with Attaché and its routes.yaml running.

Environment: PORT (3000), PRINTPIXIE_DRIVES (lumen=Lumen Drive,pinebox=Pinebox), PRINTPIXIE_ORDERS (a folder; orders), and that of attache.py.
"""

import json
import os
import pathlib
import secrets
import time

import attache
import flask
import imagesize
from werkzeug.serving import WSGIRequestHandler, make_server

PORT = int(os.environ.get("PORT", "3000"))
APP_URL = f"http://localhost:{PORT}"
DRIVES = dict(pair.split("=", 1) for pair in os.environ.get("PRINTPIXIE_DRIVES", "lumen=Lumen Drive,pinebox=Pinebox").split(","))
ORDERS = pathlib.Path(os.environ.get("PRINTPIXIE_ORDERS", "orders"))
# Demo accounts: whoever presses the button is that person. A shop has passwords here.
ACCOUNTS = {"megan@personalemail.com": "Megan", "alex@personalemail.com": "Alex", "sam@personalemail.com": "Sam"}
PRICE_CENTS = 35
PHOTOS_MAX = 24
DOTS_PER_INCH = 300
CHUNK_BYTES = 64 * 1024

app = flask.Flask(__name__)
# Lax, not Strict: the browser comes back from the drive's site, and must send the cookie then.
app.config.update(SECRET_KEY=secrets.token_bytes(32), SESSION_COOKIE_NAME="printpixie", SESSION_COOKIE_SAMESITE="Lax")
# The logins, by the random value in their signed cookie. What a connect session is called stays here, on the server.
LOGINS = {}


def login():
    """{"user", "connecting": {drive: session}, "photos": {key: name}, "orders"} of whoever is signed in, or None."""
    return LOGINS.get(flask.session.get("login"))


@app.before_request
def guard():
    # A form of another page that posts here would have its own origin. Browsers send it with each POST.
    if flask.request.method == "POST" and flask.request.headers.get("Origin") != APP_URL:
        return page("message.html", 403, title="Not from here", text="That form was not one of PrintPixie's.")
    if flask.request.endpoint not in ("home", "sign_in", "connected", "static") and login() is None:
        return flask.redirect("/", 303)
    return None


@app.after_request
def headers(answer):
    # No form-action: browsers apply it to the redirects after a form too, and Connect leads to the drive.
    answer.headers["Content-Security-Policy"] = (
        "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; base-uri 'none'; frame-ancestors 'none'")
    answer.headers["Referrer-Policy"] = "same-origin"
    answer.headers["X-Content-Type-Options"] = "nosniff"
    if flask.request.endpoint != "static":
        answer.headers.setdefault("Cache-Control", "no-store")
    return answer


@app.get("/")
def home():
    if login() is None:
        return page("signin.html", accounts=ACCOUNTS)
    drives = [drive_view(login(), drive) for drive in DRIVES]
    return page("photos.html", drives=drives, price=money(PRICE_CENTS), photos_max=PHOTOS_MAX)


def drive_view(one, drive):
    """What the page shows of a drive: its photos, or what stands in their way."""
    view = {"id": drive, "name": DRIVES[drive], "state": "connected", "photos": [], "request_id": None}
    try:
        with attache.get(f"/photos/{drive}", one["user"]) as answer:
            view["photos"] = json.load(answer)
    except attache.Problem as problem:
        view["request_id"] = problem.request_id
        view["state"] = problem.must_connect or "away"
        if view["state"] == "away":
            app.logger.warning("%s: %s", drive, problem)
    one["photos"].update({f"{drive}/{photo['id']}": photo["name"] for photo in view["photos"]})
    return view


@app.get("/thumbnails/<drive>/<path:photo>")
def thumbnail(drive, photo):
    if drive not in DRIVES:
        flask.abort(404)
    try:
        answer = attache.get(f"/photos/{drive}/{attache.quote(photo)}/thumbnail", login()["user"])
    except attache.Problem:
        flask.abort(404)
    # Only pictures are passed on, whatever the drive may say: an HTML page would be one of PrintPixie's own to the browser.
    kind = answer.headers.get_content_type()
    if kind not in ("image/jpeg", "image/png", "image/webp"):
        answer.close()
        flask.abort(404)
    return flask.Response(chunks(answer), mimetype=kind, headers={"Cache-Control": "private, max-age=300"})


def chunks(answer):
    with answer:
        while piece := answer.read(CHUNK_BYTES):
            yield piece


@app.post("/sign-in")
def sign_in():
    user = flask.request.form.get("user")
    if user not in ACCOUNTS:
        return flask.redirect("/", 303)
    LOGINS.pop(flask.session.get("login"), None)
    # A new value at each sign-in, so that nobody can know it from before.
    flask.session["login"] = secrets.token_urlsafe(32)
    LOGINS[flask.session["login"]] = {"user": user, "connecting": {}, "photos": {}, "orders": {}}
    return flask.redirect("/", 303)


@app.post("/sign-out")
def sign_out():
    LOGINS.pop(flask.session.pop("login", None), None)
    return flask.redirect("/", 303)


@app.post("/connect/<drive>")
def connect(drive):
    """Connects, and connects again: the same link for both."""
    if drive not in DRIVES:
        flask.abort(404)
    url, login()["connecting"][drive] = attache.connect(login()["user"], drive, APP_URL + "/connected")
    return flask.redirect(url, 303)


@app.get("/connected")
def connected():
    """The browser is back. Who it is, the login says; never the URL."""
    drive, status = flask.request.args.get("provider"), flask.request.args.get("status")
    session = login()["connecting"].pop(drive, None) if login() else None
    if session is None:
        flask.flash("Nothing was connected. The link was not made for you here: start from your own page.", "warn")
    elif status == "connected":
        attache.complete(session, flask.request.args.get("completion"), login()["user"])
        flask.flash(f"{DRIVES[drive]} is connected.", "good")
    elif status == "denied":
        flask.flash(f"You did not allow it, so {DRIVES[drive]} is not connected.", "warn")
    else:
        flask.flash(f"{DRIVES[drive]} could not be connected. Please try again.", "warn")
    return flask.redirect("/", 303)


@app.post("/disconnect/<drive>")
def disconnect(drive):
    if drive not in DRIVES:
        flask.abort(404)
    revoked = attache.disconnect(login()["user"], drive).get("revoked")
    told = ", and it was told to forget PrintPixie" if revoked == "yes" else ""
    flask.flash(f"{DRIVES[drive]} is disconnected{told}.", "good")
    return flask.redirect("/", 303)


@app.post("/orders")
def order():
    one = login()
    chosen = [key for key in dict.fromkeys(flask.request.form.getlist("photo")) if key in one["photos"]]
    if not chosen or len(chosen) > PHOTOS_MAX:
        flask.flash("Choose a photo first." if not chosen else f"Choose {PHOTOS_MAX} photos at most.", "warn")
        return flask.redirect("/", 303)
    number = secrets.token_hex(4)
    folder = ORDERS / number
    folder.mkdir(parents=True)
    one["orders"][number] = [fetch(one, key, folder / f"{at}.jpg") for at, key in enumerate(chosen)]
    return flask.redirect(f"/orders/{number}", 303)


def fetch(one, key, file):
    """The photo in full size, from the drive through Attaché to the printer's folder, piece by piece: no picture is ever whole in memory."""
    drive, photo = key.split("/", 1)
    line = {"drive": drive, "drive_name": DRIVES[drive], "photo": photo, "name": one["photos"][key], "problem": None}
    started, size_bytes = time.monotonic(), 0
    try:
        with attache.get(f"/photos/{drive}/{attache.quote(photo)}", one["user"]) as answer, open(file, "wb") as out:
            for piece in chunks(answer):
                size_bytes += out.write(piece)
    except (attache.Problem, OSError) as problem:
        app.logger.warning("%s was not fetched: %s", key, problem)
        return line | {"problem": getattr(problem, "must_connect", None) or "away"}
    width, height = imagesize.get(file)
    return line | {
        "size": f"{size_bytes / 1e6:.2f} MB" if size_bytes >= 1e6 else f"{size_bytes / 1e3:.0f} kB", "bytes": size_bytes,
        "width": width, "height": height, "milliseconds": round((time.monotonic() - started) * 1e3),
        "print": f"{width / DOTS_PER_INCH * 2.54:.1f} × {height / DOTS_PER_INCH * 2.54:.1f} cm"}


@app.get("/orders/<number>")
def show_order(number):
    lines = login()["orders"].get(number)
    if lines is None:
        flask.abort(404)
    good = [line for line in lines if not line["problem"]]
    return page("order.html", number=number, lines=lines, good=good, total_mb=f"{sum(line['bytes'] for line in good) / 1e6:.2f}",
                price=money(PRICE_CENTS * len(good)), reconnect={line["drive"]: line["drive_name"] for line in lines if line["problem"] not in (None, "away")})


@app.errorhandler(404)
def missing(_):
    return page("message.html", 404, title="Nothing is here", text="This page is not there, or not yours.")


@app.errorhandler(attache.Problem)
def trouble(problem):
    app.logger.warning("%s", problem)
    return page("message.html", 502, title="That did not work", text="PrintPixie could not reach one of its services. Please try again.",
                request_id=problem.request_id)


def money(cents):
    return f"€{cents // 100}.{cents % 100:02}"


def page(template, status=200, **values):
    user = (login() or {}).get("user")
    return flask.make_response(flask.render_template(template, user=user, person=ACCOUNTS.get(user), **values), status)


class Handler(WSGIRequestHandler):
    def log_request(self, code="-", size="-"):
        # Without the query: that of /connected holds the completion code.
        self.log("info", "%s %s %s", self.command, self.path.partition("?")[0], code)


if __name__ == "__main__":
    server = make_server("127.0.0.1", PORT, app, threaded=True, request_handler=Handler)
    print(f"PrintPixie is at {APP_URL}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
