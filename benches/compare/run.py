#!/usr/bin/env python3
"""Side by side: Attaché against nginx with a header map, same upstream, same load, one run, interleaved rounds.

Both proxies take the end user's token by the X-End-User header out of a table of many users and attach it; the upstream (another nginx) answers
a small body only to requests that carry a token. The proxy runs alone on one core; load and upstream share the other. What counts is the
proxy's own CPU time per 100,000 requests (/proc/PID/stat), which a noisy machine disturbs least; ratios are medians of paired rounds.

    cargo build --profile dist && python3 benches/compare/run.py --attache target/dist/attache

Needs nginx, wrk and openssl on the PATH (Debian: nginx-light wrk openssl).
"""

import argparse
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

PROXY_CORE, LOAD_CORE = "0", "1"
PORTS = {"upstream": 18080, "upstream_tls": 18443, "nginx": 18081, "attache": 18070, "public": 18071, "admin": 18072}
HZ = os.sysconf("SC_CLK_TCK")


def args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attache", default="target/dist/attache")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--large", type=int, default=0, metavar="MIB", help="measure downloads of this size instead of small answers")
    parser.add_argument("--upstream", choices=["plain", "tls", "both"], default="both")
    parser.add_argument("--vs", default=None, help="a second attache binary to compare with, instead of nginx")
    parser.add_argument("--log", default="warn", metavar="LEVEL", help="RUST_LOG of the measured one; with `info` a line a call goes to a file")
    parser.add_argument("--vs-log", default="warn", metavar="LEVEL", help="the same of the second attache")
    parser.add_argument("--vs-config", default="", metavar="YAML", help="further lines of the second one's config, such as 'metrics: {enabled: false}'")
    return parser.parse_args()


def write(folder, name, text):
    path = os.path.join(folder, name)
    with open(path, "w") as file:
        file.write(text)
    return path


def pinned(core, command, **more):
    return subprocess.Popen(["taskset", "-c", core, *command], **more)


def wait_for(port):
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    sys.exit(f"nothing listens on {port}")


def certificate(folder):
    key, cert = os.path.join(folder, "key.pem"), os.path.join(folder, "cert.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE", "-keyout", key, "-out", cert],
        check=True, capture_output=True)
    return key, cert


NGINX_MAIN = """
worker_processes 1; daemon off; pid {folder}/{name}.pid; error_log {folder}/{name}.error.log warn;
worker_rlimit_nofile 20000;
events {{ worker_connections 8000; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000000; keepalive_timeout 300s;
  client_body_temp_path {folder}/{name}-a; proxy_temp_path {folder}/{name}-b; fastcgi_temp_path {folder}/{name}-c; uwsgi_temp_path {folder}/{name}-d; scgi_temp_path {folder}/{name}-e;
  {body}
}}
"""


def start_upstream(folder, key, cert, large):
    body = f"""
  map $http_authorization $known {{ default 0; "~^Bearer token-" 1; }}
  server {{
    listen 127.0.0.1:{PORTS['upstream']}; listen 127.0.0.1:{PORTS['upstream_tls']} ssl;
    ssl_certificate {cert}; ssl_certificate_key {key};
    location / {{ if ($known = 0) {{ return 401; }} default_type application/json; return 200 '{{"files":[{{"id":"p1","name":"Lake at dawn"}},{{"id":"p2","name":"Harbour"}}]}}'; }}
    location /large {{ alias {folder}/large; }}
  }}"""
    if large:
        with open(os.path.join(folder, "large"), "wb") as file:
            file.truncate(large << 20)
    config = write(folder, "upstream.conf", NGINX_MAIN.format(folder=folder, name="upstream", body=body))
    process = pinned(LOAD_CORE, ["nginx", "-c", config], stderr=subprocess.DEVNULL)
    wait_for(PORTS["upstream"])
    return process


def start_nginx(folder, cert, users, tls):
    entries = "\n".join(f'"user{n}@example.com" "Bearer {token(n)}";' for n in range(users))
    target = f"https://up" if tls else "http://up"
    port = PORTS["upstream_tls"] if tls else PORTS["upstream"]
    ssl = f"proxy_ssl_verify on; proxy_ssl_trusted_certificate {cert}; proxy_ssl_name localhost; proxy_ssl_server_name on; proxy_ssl_session_reuse on;" if tls else ""
    body = f"""
  map_hash_max_size 65536; map_hash_bucket_size 256;
  map $http_x_end_user $attached {{ default ""; {entries} }}
  upstream up {{ server 127.0.0.1:{port}; keepalive 256; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{PORTS['nginx']};
    location / {{
      if ($attached = "") {{ return 401; }}
      proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host localhost;
      proxy_set_header Authorization $attached; proxy_set_header X-End-User ""; proxy_hide_header Set-Cookie; {ssl}
      proxy_pass {target};
    }}
  }}"""
    config = write(folder, "nginx.conf", NGINX_MAIN.format(folder=folder, name="nginx", body=body))
    process = pinned(PROXY_CORE, ["nginx", "-c", config], stderr=subprocess.DEVNULL)
    wait_for(PORTS["nginx"])
    return process, PORTS["nginx"]


def token(number):
    return f"token-{number:06d}-" + "x" * 100


def start_attache(binary, folder, cert, users, tls, name, shift, log, more=""):
    home = os.path.join(folder, f"{name}-{'tls' if tls else 'plain'}")
    shutil.rmtree(home, ignore_errors=True)
    os.makedirs(home)
    upstream = f"https://localhost:{PORTS['upstream_tls']}" if tls else f"http://127.0.0.1:{PORTS['upstream']}"
    host = upstream.split("//")[1]
    proxy, public, admin = (PORTS[key] + shift for key in ("attache", "public", "admin"))
    config = write(home, "routes.yaml", f"""
listen: {{proxy: "127.0.0.1:{proxy}", public: "127.0.0.1:{public}", admin: "127.0.0.1:{admin}"}}
store: {{sled: {{path: ./attache.db}}}}
providers:
  bench: {{client_id: bench, client_secret: none, authorize_url: "{upstream}/authorize", token_url: "{upstream}/token", token_hosts: ["{host}"]}}
routes:
  - {{match: "/{{*rest}}", provider: bench, upstream: "{upstream}/{{rest}}"}}
{more}
""")
    lines = "".join(json.dumps({"provider": "bench", "end_user": f"user{n}@example.com", "access_token": token(n)}) + "\n" for n in range(users))
    subprocess.run([binary, "connections", "import", "-c", config], input=lines.encode(), check=True, capture_output=True)
    environment = dict(os.environ, RUST_LOG=log, SSL_CERT_FILE=cert)
    with open(os.path.join(folder, f"{name}.log"), "wb") as out:
        process = pinned(PROXY_CORE, [binary, "--log-format", "json", "run", "-c", config, "--workers", "1"], env=environment, stderr=out)
    wait_for(proxy)
    return process, proxy


def cpu_seconds(pid):
    """User and system time of the process and of nginx's worker below it."""
    total = 0
    for entry in [pid, *children(pid)]:
        with open(f"/proc/{entry}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / HZ


def children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(child) for child in file.read().split()]
    except FileNotFoundError:
        return []


def resident_mib(pid):
    most = 0
    for entry in [pid, *children(pid)]:
        with open(f"/proc/{entry}/status") as file:
            found = re.search(r"VmHWM:\s+(\d+)", file.read())
        most = max(most, int(found.group(1)) if found else 0)
    return most / 1024


def load(folder, port, options, seconds):
    script = write(folder, "load.lua", f"""
local n = 0
request = function()
  n = (n * 1103515245 + 12345) % 2147483648
  wrk.headers["X-End-User"] = "user" .. (n % {options.users}) .. "@example.com"
  return wrk.format("GET", "/{'large' if options.large else 'drive/v3/files?fields=files'}")
end
done = function(summary, latency)
  io.write(string.format("RESULT %d %d %d %d %d %d\\n", summary.requests, summary.duration, summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout, latency:percentile(50), latency:percentile(99), summary.bytes))
end
""")
    connections = 8 if options.large else options.connections
    command = ["taskset", "-c", LOAD_CORE, "wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--timeout", "30s", "-s", script, f"http://127.0.0.1:{port}"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"RESULT (\d+) (\d+) (\d+) (\d+) (\d+) (\d+)", output)
    if not found:
        sys.exit("wrk said nothing that could be read:\n" + output)
    requests, micros, errors, p50, p99, size = map(int, found.groups())
    if errors:
        sys.exit(f"port {port}: {errors} of {requests} requests failed; a figure with failures says nothing")
    return {"requests": requests, "seconds": micros / 1e6, "p50": p50, "p99": p99, "bytes": size}


def measure(folder, tls, options):
    key, cert = certificate(folder)
    processes = [start_upstream(folder, key, cert, options.large)]
    rows = {}
    try:
        first, first_port = start_attache(options.attache, folder, cert, options.users, tls, "attache", 0, options.log)
        processes.append(first)
        if options.vs:
            second, second_port = start_attache(options.vs, folder, cert, options.users, tls, "other", 100, options.vs_log, options.vs_config)
        else:
            second, second_port = start_nginx(folder, cert, options.users, tls)
        processes.append(second)
        peers = [("attache", first, first_port), ("other attache" if options.vs else "nginx", second, second_port)]
        for _, _, port in peers:
            load(folder, port, options, 2)
        for _ in range(options.rounds):
            for name, process, port in peers:
                before = cpu_seconds(process.pid)
                result = load(folder, port, options, options.seconds)
                used = cpu_seconds(process.pid) - before
                unit = result["bytes"] / 1e9 if options.large else result["requests"] / 100_000
                result["cpu"] = used / unit
                rows.setdefault(name, []).append(result)
        for name, process, _ in peers:
            rows[name][0]["rss"] = resident_mib(process.pid)
    finally:
        for process in processes:
            process.send_signal(signal.SIGTERM)
        for process in processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
    report("TLS" if tls else "plain", rows, options)


def report(upstream, rows, options):
    unit = "CPU s/GB" if options.large else "CPU s/100k requests"
    print(f"\n{upstream} upstream, {options.rounds} rounds of {options.seconds:g} s, {options.users} users, medians")
    print(f"{'':<14}{'requests/s':>12}{'MB/s':>9}{unit:>22}{'p50 µs':>9}{'p99 µs':>9}{'peak RSS MiB':>14}")
    median = lambda results, of: statistics.median(of(result) for result in results)
    for name, results in rows.items():
        print(f"{name:<14}{median(results, lambda r: r['requests'] / r['seconds']):>12.0f}{median(results, lambda r: r['bytes'] / r['seconds'] / 1e6):>9.1f}"
              f"{median(results, lambda r: r['cpu']):>22.3f}{median(results, lambda r: r['p50']):>9.0f}{median(results, lambda r: r['p99']):>9.0f}{results[0]['rss']:>14.1f}")
    (first, ours), (second, theirs) = rows.items()
    ratios = [a["cpu"] / b["cpu"] for a, b in zip(ours, theirs)]
    speed = [(a["requests"] / a["seconds"]) / (b["requests"] / b["seconds"]) for a, b in zip(ours, theirs)]
    print(f"{first} / {second}: CPU {statistics.median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f}), requests/s {statistics.median(speed):.2f}")


def main():
    options = args()
    options.attache = os.path.abspath(options.attache)
    options.vs = options.vs and os.path.abspath(options.vs)
    missing = [tool for tool in ("nginx", "wrk", "openssl", "taskset") if not shutil.which(tool)]
    if missing:
        sys.exit(f"not on the PATH: {', '.join(missing)} (Debian: apt-get install nginx-light wrk openssl util-linux)")
    with tempfile.TemporaryDirectory(prefix="attache-bench-") as folder:
        os.chmod(folder, 0o755)
        for tls in {"plain": [False], "tls": [True], "both": [False, True]}[options.upstream]:
            measure(folder, tls, options)


if __name__ == "__main__":
    main()
