#!/usr/bin/env python3
"""Sends the same bytes to Attaché, nginx and haproxy in front of a recording upstream, and fails where ours lets through what it should not.

    python3 tests/differential/run.py [--install] --attache target/debug/attache [--only smuggling|paths|answers|tunnels|h2|peers]... [--out DIR]

Checks that what the tests need is there, and goes on in the Python of `.venv`. What is missing is said, and skipped; with CI set, that is a failure.
`--install` gets it first: servers and tools by apt (as root), packages of requirements.txt by pip.
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
PROGRAMS = {"nginx": "nginx-light", "haproxy": "haproxy", "h2load": "nghttp2-client", "openssl": "openssl"}
PARTS = ("smuggling", "paths", "answers", "tunnels", "h2", "peers")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attache", type=pathlib.Path, required=True)
    parser.add_argument("--only", action="append", default=[], choices=PARTS, help="one part; may be repeated")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "out", help="where the tables go")
    parser.add_argument("--install", action="store_true", help="install what is missing first")
    asked = parser.parse_args()
    if not os.access(asked.attache, os.X_OK):
        print(f"{asked.attache} is no program: build it first", file=sys.stderr)
        sys.exit(2)
    if asked.install:
        install()
    programs = [program for program in PROGRAMS if found(program) is None]
    missing = [f"{program} (apt: {PROGRAMS[program]})" for program in programs]
    is_whole = is_venv_whole()
    if not is_whole:
        missing.append(f"Python packages (pip install -r requirements.txt into {VENV})")
    if missing:
        print("SKIPPED: the differential tests need", "; ".join(missing), "for all they do", file=sys.stderr)
        print(f"python3 {os.path.relpath(__file__)} --install … gets it", file=sys.stderr)
        if os.environ.get("CI") or not is_whole:
            sys.exit(1 if os.environ.get("CI") else 0)
    asked.out.mkdir(parents=True, exist_ok=True)
    command = [VENV / "bin/python", HERE / "suite.py", "--attache", asked.attache.resolve(), "--out", asked.out.resolve()]
    for program in programs:
        command += ["--without", program]
    for part in asked.only or PARTS:
        command += ["--only", part]
    sys.stdout.flush()
    os.execv(command[0], [str(part) for part in command])


def found(program):
    """Debian puts servers where only root's path looks."""
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def is_venv_whole():
    try:
        return subprocess.run([VENV / "bin/python", "-c", "import h11, h2, hpack, hyperframe"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def install():
    wanted = [package for program, package in PROGRAMS.items() if found(program) is None]
    if importlib.util.find_spec("ensurepip") is None:
        wanted.append("python3-venv")
    if wanted:
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["apt-get", "install", "-y", "-qq", *wanted], check=True, stdout=subprocess.DEVNULL, env=quiet)
    if not is_venv_whole():
        subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], check=True)
    subprocess.run([VENV / "bin/pip", "install", "--quiet", "--disable-pip-version-check", "-r", HERE / "requirements.txt"], check=True)


if __name__ == "__main__":
    main()
