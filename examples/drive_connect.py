#!/usr/bin/env python3
"""Connects an end user by the connect.* examples as a browser would: cookies, redirects, and a person's clicks. run.sh calls it.

    drive_connect.py APP_URL USER allow|deny

Exit code 0 when the app lists the user's photos in the end (allow), or says that nothing was connected (deny).
"""

import http.cookiejar
import re
import sys
import urllib.parse
import urllib.request


class Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects as browsers do: a form's Origin stays behind."""

    def redirect_request(self, request, *rest):
        onward = super().redirect_request(request, *rest)
        onward.headers.pop("Origin", None)
        return onward


class Browser:
    def __init__(self):
        cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), Redirects, cookies)
        self.url, self.page = None, ""

    def go(self, url, form=None):
        """Opens a URL, or sends a form from the page that is open, to the end of all redirects."""
        url = urllib.parse.urljoin(self.url, url) if self.url else url
        parts = urllib.parse.urlsplit(url)
        headers = {} if form is None else {"Origin": f"{parts.scheme}://{parts.netloc}"}
        data = None if form is None else urllib.parse.urlencode(form).encode()
        with self.opener.open(urllib.request.Request(url, data, headers), timeout=30) as answer:
            self.url, self.page = answer.geturl(), answer.read().decode()

    def find(self, pattern):
        found = re.search(pattern, self.page)
        assert found, f"{self.url} has no {pattern}: {self.page[:2000]}"
        return found.group(1)


def main():
    app, user, decision = sys.argv[1:]
    browser = Browser()
    browser.go(app)
    browser.go("/login", {"user": user})
    browser.find("(Connect your photos)")
    browser.go("/connect", {})
    assert "/connect/cs_" in browser.url, browser.url
    browser.find("(Connect <bdi>Sandbox</bdi> to <bdi>PrintPixie</bdi>)")
    browser.go(browser.find('<form method="post" action="([^"]+)"'), {"provider": browser.find('name="provider" value="([^"]+)"')})
    assert "/authorize?" in browser.url, browser.url
    browser.go("/authorize", {"ticket": browser.find('name="ticket" value="([^"]+)"'), "decision": decision, "user": user})
    assert browser.url.startswith(app), browser.url
    if decision == "allow":
        browser.find("Your photos.*<li>([^<]+[.]jpg)</li>")
        browser.go(app)
        names = re.findall("<li>([^<]+)</li>", browser.page)
        print(f"{user} has connected; the app lists {len(names)} photos: {', '.join(names)}")
    else:
        browser.find("(Nothing was connected)")
        browser.find("(Connect your photos)")
        print(f"{user} has declined, and the app says so")


if __name__ == "__main__":
    main()
