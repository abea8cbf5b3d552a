#!/usr/bin/env python3
"""Makes a provider definition of each row of a table of OAuth facts, where providers/ has none of that name yet.

It was run once, to begin the catalogue; the files are kept by hand since. Standard library only.

    scripts/catalogue.py FACTS.csv UNVERIFIED.csv providers/
"""

import csv
import pathlib
import re
import sys
import textwrap
from urllib.parse import urlsplit

CATEGORIES = {"dev": "development", "comms": "communication", "data": "development"}
SEPARATORS = {"comma": ",", "plus": "+", "semicolon": ";"}
PLACE = re.compile(r"\{(\w+)\}")


def quoted(text):
    """A YAML scalar."""
    plain = re.fullmatch(r"[A-Za-z0-9/][\w./:@=?&-]*(?<!:)", text) and text not in ("true", "false", "none", "no", "yes", "on", "off")
    return text if plain and not text.replace(".", "").isdigit() else '"' + text.replace('"', '\\"') + '"'


def span(seconds):
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def lifetime(text):
    """The default is an hour, which is left out."""
    if text.startswith("none"):
        return "never"
    found = re.match(r"\d+", text)
    if not found or int(found[0]) in (3599, 3600):
        return None
    return span(int(found[0]))


def pairs(text):
    found = dict(part.split("=", 1) for part in text.split(";") if "=" in part)
    return {name: value for name, value in found.items() if not PLACE.search(value) and "|" not in value}


def mapping(key, entries):
    if not entries:
        return []
    return [f"{key}:"] + [f"  {name}: {quoted(value)}" for name, value in entries.items()]


def attach(text):
    if found := re.match(r"Authorization: (\S+) \{token\}", text):
        return f"{{scheme: {found[1]}}}"
    if found := re.match(r"([\w-]+) query param", text):
        return f"{{query: {found[1]}}}"
    if found := re.match(r"(x-[\w-]+|X-[\w-]+|access_token) header", text):
        return f"{{header: {found[1]}}}"
    return None


def client_auth(text):
    """Where both or nothing is known, the form: it is what most clients send."""
    return {"basic": None, "none": "none", "private_key_jwt": None}.get(text, "body")


def host(url):
    return urlsplit(url).netloc


def definition(row, is_partial):
    mode = row["auth_mode"]
    for_app = mode in ("oauth2_client_credentials", "oauth2_jwt_bearer")
    about = row["quirks"].replace("(Sources agree on the endpoint; the grant itself is background knowledge.)", "").strip()
    lines = textwrap.wrap(f"{row['display_name']}. {about}".strip(), 140, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
    lines += [f"display_name: {quoted(row['display_name']) if ' ' not in row['display_name'] or ':' in row['display_name'] else row['display_name']}"]
    lines += [f"category: {CATEGORIES.get(row['category'], row['category'])}"]
    if mode == "oauth1":
        lines += [f"request_token_url: {row['request_token_url']}"]
    for key in ("authorize_url", "token_url", "revoke_url", "device_authorization_url"):
        if row[key].startswith("https://") and not (for_app and key != "token_url"):
            lines += [f"{key}: {quoted(row[key])}"]
    if mode == "oauth2_code" and row["pkce"] == "no":
        lines += ["pkce: none"]
    if mode != "oauth1" and mode != "cloudkit_web_auth_token" and (auth := client_auth(row["token_endpoint_auth"])):
        lines += [f"client_auth: {auth}"]
    if row["scope_separator"] in SEPARATORS and not for_app:
        lines += [f'scope_separator: "{SEPARATORS[row["scope_separator"]]}"']
    if not for_app:
        lines += mapping("authorize_params", pairs(row["extra_authorize_params"]))
    params = pairs(row["extra_token_params"])
    lines += mapping("token_params", {name: value for name, value in params.items() if name not in ("grant_type", "scope")})
    urls = [row[key] for key in ("authorize_url", "token_url", "api_base_url")]
    if places := list(dict.fromkeys(name for url in urls for name in PLACE.findall(url))):
        lines += ["inputs:"]
        in_host = {name for url in urls for name in PLACE.findall(host(url))}
        for name in places:
            kind = "" if name not in in_host else ", kind: host" if name in ("host", "domain", "instance") else ", kind: label"
            lines += [f"  {name}: {{label: {name.replace('_', ' ').capitalize()}{kind}}}"]
    if mode != "oauth1" and (scheme := attach(row["attach"])):
        lines += [f"attach: {scheme}"]
    lines += ["token_hosts:", f"  - {quoted(host(row['api_base_url']) or host(row['token_url']) or host(row['authorize_url']))}"]
    if life := lifetime(row["default_expires_in_s"]):
        lines += [f"default_expires_in: {life}"]
    if row["refresh_token"] in ("always", "rotating", "on-offline-scope") and life != "never":
        lines += ["refresh:", "  expected: true"]
    lines += [f"verified: {'partial' if is_partial else 'full'}"]
    return "\n".join(lines) + "\n"


def main():
    facts, unverified, folder = sys.argv[1:4]
    with open(unverified, newline="", encoding="utf-8") as file:
        doubtful = {row["id"] for row in csv.DictReader(file)}
    with open(facts, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            path = pathlib.Path(folder, f"{row['id']}.yaml")
            if not path.exists():
                path.write_text(definition(row, row["id"] in doubtful or int(row["n_sources"] or 0) < 2), encoding="utf-8")


if __name__ == "__main__":
    main()
