#!/usr/bin/env python3
"""Real SDKs through Attaché, and real browsers that connect through it to real authorization servers.

    python3 tests/interop/run.py --attache target/release/attache [--only NAME]... [--shots DIR]

Checks that what the tests need is there, and runs `sdks/run.py` and `run.mjs`. What is missing is said, and the tests are skipped; with CI set, that is a failure.
`--install` gets it first: packages by apt (as root), npm and pip.
"""

import argparse
import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
VENV = HERE / ".venv"
NODE_AT_LEAST = (20, 0)


def main():
    parser = argparse.ArgumentParser(description="Real SDKs and real browsers through Attaché.")
    parser.add_argument("--attache", type=pathlib.Path, required=True)
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="one scenario or test of an SDK; may be repeated")
    parser.add_argument("--shots", type=pathlib.Path, default=HERE / "out", help="where the screenshots go")
    parser.add_argument("--install", action="store_true", help="install what is missing first")
    asked = parser.parse_args()
    if not os.access(asked.attache, os.X_OK):
        print(f"{asked.attache} is no program: build it first", file=sys.stderr)
        sys.exit(2)
    if asked.install:
        install()
    missing = what_is_missing()
    if missing:
        print("SKIPPED: the interop tests need", "; ".join(missing), file=sys.stderr)
        print(f"python3 {os.path.relpath(__file__)} --install … gets it", file=sys.stderr)
        sys.exit(1 if os.environ.get("CI") else 0)
    sdks = [name for name in asked.only if name in sdk_tests()]
    scenarios = [name for name in asked.only if name not in sdks]
    failed = False
    if sdks or not scenarios:
        failed = run([VENV / "bin/python", HERE / "sdks/run.py", "--attache", asked.attache.resolve()], sdks)
    if scenarios or not sdks:
        browser = ["--chromium", chromium(), "--shots", asked.shots.resolve()]
        failed = run(["node", HERE / "run.mjs", "--attache", asked.attache.resolve(), *browser], scenarios) or failed
    sys.exit(1 if failed else 0)


def run(command, names):
    command += [part for name in names for part in ("--only", name)]
    return subprocess.run([str(part) for part in command], check=False).returncode != 0


def sdk_tests():
    return subprocess.run([VENV / "bin/python", HERE / "sdks/run.py", "--list"], capture_output=True, text=True, check=True).stdout.split()


def chromium():
    return shutil.which("chromium") or shutil.which("chromium-browser")


def what_is_missing():
    missing = []
    if node_version() < NODE_AT_LEAST:
        missing.append("node 20 or later")
    if chromium() is None:
        missing.append("Chromium (apt: chromium)")
    for program in ("curl", "openssl"):
        if shutil.which(program) is None:
            missing.append(f"{program} (apt: {program})")
    if not all((HERE / "node_modules" / name).is_dir() for name in ("playwright-core", "@octokit/rest", "ws")):
        missing.append(f"npm packages (npm ci in {HERE})")
    if not is_venv_whole():
        missing.append(f"Python packages (pip install -r requirements.txt into {VENV})")
    return missing


def node_version():
    try:
        said = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return (0, 0)
    return tuple(int(part) for part in said.strip().lstrip("v").split(".")[:2])


def is_venv_whole():
    try:
        return subprocess.run([VENV / "bin/python", "-c", "import authlib, dropbox, flask, googleapiclient, grpc, h2, httpx, jwt, oauthlib, requests, schemathesis, stripe, websockets"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def install():
    wanted = [package for package in ("chromium", "curl", "openssl", "npm") if shutil.which(package) is None]
    if importlib.util.find_spec("ensurepip") is None:
        wanted.append("python3-venv")
    if wanted:
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["apt-get", "install", "-y", "-qq", *wanted], check=True, stdout=subprocess.DEVNULL, env=quiet)
    subprocess.run(["npm", "ci", "--silent"], cwd=HERE, check=True)
    if not is_venv_whole():
        subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], check=True)
    subprocess.run([VENV / "bin/pip", "install", "--quiet", "--disable-pip-version-check", "-r", HERE / "requirements.txt"], check=True)


if __name__ == "__main__":
    main()
