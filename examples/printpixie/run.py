#!/usr/bin/env python3
"""PrintPixie and all that it needs, with one command: two sandbox drives, Attaché, and the web app in a virtual environment of its own.

    examples/printpixie/run.py --attache target/release/attache        then open http://localhost:3000

Ports that are taken are replaced by free ones. The state is in a temporary folder, which goes with the program. Ctrl-C ends all of it.
"""

import argparse
import json
import os
import pathlib
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import venv

HERE = pathlib.Path(__file__).resolve().parent
PORTS = {"proxy": 7070, "public": 7071, "admin": 7072, "lumen": 7081, "pinebox": 7082, "app": 3000}


def python():
    """The interpreter of the virtual environment, which is made at the first start and whenever requirements.txt has changed."""
    folder, wanted = HERE / ".venv", (HERE / "requirements.txt").read_bytes()
    stamp, program = folder / "requirements.txt", folder / "bin" / "python"
    if not (stamp.exists() and stamp.read_bytes() == wanted and program.exists()):
        print("making the virtual environment in .venv, once …", flush=True)
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([program, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", HERE / "requirements.txt"], check=True)
        stamp.write_bytes(wanted)
    return program


def ports(any_ports):
    """A port for each name, all held at once so that they differ."""
    held, found = [], {}
    for name, port in PORTS.items():
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", 0 if any_ports else port))
        except OSError:
            one.bind(("127.0.0.1", 0))
        held.append(one)
        found[name] = one.getsockname()[1]
    for one in held:
        one.close()
    return found


def stop(processes):
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


def wait_for(process, ready):
    for _ in range(300):
        if process.poll() is not None:
            sys.exit(f"{process.args[0]} ended with {process.returncode}; its words are above")
        if ready():
            return
        time.sleep(0.1)
    sys.exit(f"{process.args[0]} did not become ready in 30 s")


def answers(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def main():
    parser = argparse.ArgumentParser(description="Runs PrintPixie with Attaché and two sandbox drives.")
    parser.add_argument("--attache", default=shutil.which("attache"), help="the program (attache of PATH)")
    parser.add_argument("--any-ports", action="store_true", help="free ports instead of the usual ones; for tests")
    parser.add_argument("--info", type=pathlib.Path, help="write the addresses to this file as JSON once all is ready; for tests")
    arguments = parser.parse_args()
    if not arguments.attache or not os.access(arguments.attache, os.X_OK):
        parser.error("no program: say --attache target/release/attache, after cargo build --release")
    attache, app_python = os.path.abspath(arguments.attache), python()
    port = ports(arguments.any_ports)
    at = {name: f"127.0.0.1:{number}" for name, number in port.items()}
    app_url = f"http://localhost:{port['app']}"

    # A SIGTERM ends as Ctrl-C does: by the clean-up below.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    processes = []
    with tempfile.TemporaryDirectory(prefix="printpixie-") as state:
        common = {**os.environ, "PRINTPIXIE_ADMIN_TOKEN": secrets.token_urlsafe(32), "NO_PROXY": "*"}
        of_attache = {**common, "ATTACHE_PROXY": at["proxy"], "ATTACHE_PUBLIC": at["public"], "ATTACHE_ADMIN": at["admin"], "ATTACHE_STATE": state,
                      "PRINTPIXIE_URL": app_url, "LUMEN": at["lumen"], "PINEBOX": at["pinebox"]}
        of_app = {**common, "ATTACHE_URL": f"http://{at['proxy']}", "ATTACHE_ADMIN_URL": f"http://{at['admin']}", "PORT": str(port["app"]),
                  "PRINTPIXIE_ORDERS": f"{state}/orders", "PYTHONDONTWRITEBYTECODE": "1"}

        def start(env, *command):
            process = subprocess.Popen(command, env=env, start_new_session=True)
            processes.append(process)
            return process

        try:
            for drive in ("lumen", "pinebox"):
                sandbox = start({**common, "RUST_LOG": "warn"}, attache, "sandbox", "--listen", at[drive],
                                "--redirect-uri", f"http://localhost:{port['public']}/oauth/callback/{drive}")
                wait_for(sandbox, lambda name=drive: answers(port[name]))
            running = start(of_attache, attache, "run", "-c", str(HERE / "routes.yaml"))
            health = [attache, "health", "--address", at["admin"]]
            wait_for(running, lambda: subprocess.run(health, capture_output=True, check=False).returncode == 0)
            app = start(of_app, str(app_python), str(HERE / "app.py"))
            wait_for(app, lambda: answers(port["app"]))
            if arguments.info:
                told = {"app": app_url, "state": state, **{name: f"http://{address}" for name, address in at.items() if name != "app"}}
                arguments.info.with_suffix(".new").write_text(json.dumps(told))
                arguments.info.with_suffix(".new").rename(arguments.info)
            print(f"\nPrintPixie is ready: {app_url}\nLumen Drive is http://{at['lumen']}, Pinebox is http://{at['pinebox']}: take a permission back at their /control.\n"
                  "Ctrl-C ends it.\n", flush=True)
            ended = threading.Event()
            for process in processes:
                threading.Thread(target=lambda one=process: (one.wait(), ended.set()), daemon=True).start()
            ended.wait()
            sys.exit("one of the programs ended; its words are above")
        except KeyboardInterrupt:
            print("ending …")
        finally:
            stop(processes[::-1])


if __name__ == "__main__":
    main()
