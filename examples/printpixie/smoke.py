#!/usr/bin/env python3
"""Goes through PrintPixie by plain HTTP with cookies, as a browser without script would, and checks what a person would see.

    examples/printpixie/smoke.py --attache target/release/attache

Standard library only, beside what run.py installs. Exit code 0 when all of it holds. The journey by a real browser is test.sh.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from drive_connect import Browser  # noqa: E402  the browser of the other examples' test

MEGAN, ALEX = "megan@personalemail.com", "alex@personalemail.com"


@contextlib.contextmanager
def printpixie(attache):
    """run.py on free ports; gives the addresses that it tells."""
    with tempfile.TemporaryDirectory() as folder:
        info = pathlib.Path(folder) / "info.json"
        with open(pathlib.Path(folder) / "log", "w+b") as log:
            command = [sys.executable, HERE / "run.py", "--attache", attache, "--any-ports", "--info", info]
            running = subprocess.Popen(command, stdout=log, stderr=log)
            try:
                deadline = time.monotonic() + 300     # the first start makes a virtual environment
                while not info.exists():
                    if running.poll() is not None or time.monotonic() > deadline:
                        raise SystemExit("run.py did not become ready")
                    time.sleep(0.1)
                yield json.loads(info.read_text())
            except BaseException:
                log.seek(0)
                sys.stderr.write(log.read().decode(errors="replace")[-8000:])
                raise
            finally:
                running.terminate()
                running.wait(30)
            if running.returncode != 143:
                raise SystemExit(f"run.py ended with {running.returncode} when it was told to")


def sign_in(app, user):
    browser = Browser()
    browser.go(app)
    browser.go("/sign-in", {"user": user})
    browser.find("(what shall we print)")
    return browser


def connect(browser, app, drive, decision="allow", as_user=MEGAN):
    browser.go(f"{app}/connect/{drive}", {})
    consent(browser, decision, as_user)


def consent(browser, decision="allow", as_user=MEGAN):
    """From Attaché's page through the drive's, to where the drive sends the browser."""
    browser.go(browser.find('<form method="post" action="([^"]+)"'), {"provider": browser.find('name="provider" value="([^"]+)"')})
    browser.go("/authorize", {"ticket": browser.find('name="ticket" value="([^"]+)"'), "decision": decision, "user": as_user})


def photos(browser, app, drive):
    browser.go(app)
    return re.findall(f'name="photo" value="({drive}/[^"]+)"', browser.page)


def control(sandbox, switches):
    request = urllib.request.Request(sandbox + "/control", json.dumps(switches).encode(), {"Content-Type": "application/json"})
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30).close()


def refused(status, go):
    try:
        go()
    except urllib.error.HTTPError as error:
        error.close()
        assert error.code == status, f"{error.code} instead of {status}"
        return
    raise AssertionError(f"it was answered, not refused with {status}")


def both_drives_and_an_order(at):
    app = at["app"]
    browser = sign_in(app, MEGAN)
    assert "Connect Lumen Drive" in browser.page and "Connect Pinebox" in browser.page, browser.page
    connect(browser, app, "lumen", "deny")
    browser.find("(You did not allow it, so Lumen Drive is not connected)")
    connect(browser, app, "lumen")
    browser.find("(Lumen Drive is connected)")
    connect(browser, app, "pinebox", as_user="megan.travels@personalemail.com")
    chosen = [photos(browser, app, "lumen")[0], photos(browser, app, "pinebox")[3]]
    assert len(photos(browser, app, "lumen")) == len(photos(browser, app, "pinebox")) == 12
    browser.go(f"{app}/orders", [("photo", key) for key in chosen] + [("photo", "lumen/not-hers")])
    number = browser.find("Order <strong>([0-9a-f]+)</strong>: 2 prints")
    assert browser.page.count("1600 × 1067") == 2, browser.page
    sizes = sorted(int(size) for size in re.findall(r'title="(\d+) bytes"', browser.page))
    files = sorted(file.stat().st_size for file in (pathlib.Path(at["state"]) / "orders" / number).iterdir())
    assert files == sizes and files[0] > 20_000, (files, sizes)
    # Another user of the shop sees nothing of it.
    other = sign_in(app, ALEX)
    refused(404, lambda: other.go(f"{app}/orders/{number}"))
    refused(404, lambda: other.go(f"{app}/thumbnails/{chosen[0]}"))


def a_permission_that_ended(at):
    app = at["app"]
    browser = sign_in(app, MEGAN)
    key = photos(browser, app, "lumen")[0]
    control(at["lumen"], {"revoke_user": MEGAN})
    browser.go(f"{app}/orders", {"photo": key})
    browser.find("(Some photos of Lumen Drive could not be fetched)")
    browser.go(app)
    browser.find("(Connect Lumen Drive again)")
    assert "pinebox/ph_" in browser.page, "the other drive goes on"
    connect(browser, app, "lumen")
    assert len(photos(browser, app, "lumen")) == 12, browser.page


def a_drive_that_is_away(at):
    app = at["app"]
    browser = sign_in(app, MEGAN)
    control(at["pinebox"], {"expire_access_tokens": True, "fail_token": {"status": 503}})
    browser.go(app)
    browser.find("(Pinebox cannot be reached right now)")
    assert "lumen/ph_" in browser.page, "the other drive goes on"
    control(at["pinebox"], {"fail_token": None})
    for _ in range(100):     # Attaché leaves a token endpoint that failed alone for a moment
        if photos(browser, app, "pinebox"):
            return
        time.sleep(0.2)
    raise AssertionError(browser.page)


def a_link_that_was_forwarded(at):
    """Alex makes a link and sends it to Megan, who opens it and says yes: her drive must not become Alex's."""
    app = at["app"]
    alex, megan = sign_in(app, ALEX), sign_in(app, MEGAN)
    alex.go(f"{app}/connect/lumen", {})
    link = alex.url
    megan.go(link)
    consent(megan, as_user=MEGAN)
    megan.find("(Nothing was connected)")
    assert photos(alex, app, "lumen") == [], alex.page
    alex.find("(Connect Lumen Drive)")


def disconnecting(at):
    app = at["app"]
    browser = sign_in(app, MEGAN)
    browser.go(f"{app}/disconnect/lumen", {})
    browser.find("(Lumen Drive is disconnected, and it was told to forget PrintPixie)")
    assert photos(browser, app, "lumen") == [] and len(photos(browser, app, "pinebox")) == 12


def who_may_post(at):
    app = at["app"]
    refused(403, lambda: urllib.request.urlopen(urllib.request.Request(f"{app}/sign-in", b"user=" + MEGAN.encode(), {"Origin": "http://evil.example"}), timeout=30))
    stranger = Browser()
    stranger.go(f"{app}/orders", {"photo": "lumen/x"})
    stranger.find("(Demo accounts)")


def main():
    parser = argparse.ArgumentParser(description="Goes through PrintPixie by plain HTTP.")
    parser.add_argument("--attache", required=True, help="the program")
    os.environ["NO_PROXY"] = "*"
    steps = [both_drives_and_an_order, a_permission_that_ended, a_drive_that_is_away, a_link_that_was_forwarded, disconnecting, who_may_post]
    with printpixie(os.path.abspath(parser.parse_args().attache)) as at:
        for step in steps:
            step(at)
            print(f"printpixie: {step.__name__.replace('_', ' ')}: ok", flush=True)


if __name__ == "__main__":
    main()
