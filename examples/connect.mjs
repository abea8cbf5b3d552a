#!/usr/bin/env node
// PrintPixie with a "Connect your photos" button: a web app whose end users connect their accounts through Attaché. Node 18 or later, no packages.
//
// The same as connect.py; docs/connect.md explains the part between the two markers.
//
//     attache dev                                                          in one terminal; it prints the folder of its route map
//     ATTACHE_ADMIN_TOKEN_FILE=FOLDER/attache.admin-token connect.mjs      in another; then open http://localhost:3000
//
// Environment: ATTACHE_URL (http://localhost:7070), ATTACHE_ADMIN_URL (http://127.0.0.1:7072), ATTACHE_ADMIN_TOKEN or ATTACHE_ADMIN_TOKEN_FILE
// (attache.admin-token), PORT (3000; its origin must be among `connect.allowed_return_urls`), PROVIDER (sandbox).

import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";

const attacheUrl = process.env.ATTACHE_URL ?? "http://localhost:7070";
const adminUrl = process.env.ATTACHE_ADMIN_URL ?? "http://127.0.0.1:7072";
const tokenFile = process.env.ATTACHE_ADMIN_TOKEN_FILE ?? "attache.admin-token";
const adminToken = process.env.ATTACHE_ADMIN_TOKEN ?? readFileSync(tokenFile, "utf8").trim();
const port = Number(process.env.PORT ?? 3000);
const appUrl = `http://localhost:${port}`;
const provider = process.env.PROVIDER ?? "sandbox";

// The app's own logins, by the random value of its cookie: {user, connecting}. A real app has these already.
const logins = new Map();

// --- the connect flow: docs/connect.md quotes from here ---
// POST /connect: the end user pressed the button. Answers where to redirect the browser to.
async function connect(login) {
  const made = await attache("/v1/connect-sessions", {
    end_user: login.user, providers: [provider], complete: "app", return_url: `${appUrl}/connected` });
  login.connecting = made.session;
  return made.connect_url;
}

// GET /connected: the browser is back. The user is the one who is logged in now, whatever the URL says.
async function connected(login, query) {
  const session = login.connecting;
  delete login.connecting;
  if (session && query.get("status") === "connected") {
    await attache(`/v1/connect-sessions/${session}/complete`, { completion: query.get("completion"), end_user: login.user });
  }
  return "/";
}

async function attache(path, body) {
  const headers = { Authorization: `Bearer ${adminToken}`, "Content-Type": "application/json" };
  const answer = await fetch(adminUrl + path, { method: "POST", headers, body: JSON.stringify(body) });
  if (!answer.ok) throw new Error(`${path.split("/")[2]} answered ${answer.status}: ${(await answer.json()).detail}`);
  return answer.json();
}
// --- to here ---

// The names of the end user's photos, by the proxy; null if they must connect, for the first time or again.
async function photos(user) {
  const answer = await fetch(`${attacheUrl}/photos`, { headers: { "X-End-User": user } });
  if (answer.status === 401 && answer.headers.get("proxy-status")?.startsWith("attache;")) return null;
  if (!answer.ok) throw new Error(`the photos answered ${answer.status}`);
  return (await answer.json()).items.map((photo) => photo.name);
}

const escape = (text) => text.replace(/[&<>"]/g, (letter) => `&#${letter.charCodeAt(0)};`);
const said = { denied: "You did not allow it. Nothing was connected.", failed: "That did not work. Please try again." };

async function home(login, word) {
  if (!login) return `<form method="post" action="/login"><input name="user" value="alex@personalemail.com"><button>Log in</button></form>`;
  const page = `<p>${said[word] ?? ""}</p><p>You are ${escape(login.user)}.</p>`;
  const names = await photos(login.user);
  if (!names) return `${page}<form method="post" action="/connect"><button>Connect your photos</button></form>`;
  return `${page}<h2>Your photos</h2><ul>${names.map((name) => `<li>${escape(name)}</li>`).join("")}</ul>`;
}

async function handle(request, response) {
  const url = new URL(request.url, appUrl);
  const login = logins.get(/(?:^|; )printpixie=([^;]+)/.exec(request.headers.cookie ?? "")?.[1]);
  const answer = (status, body, headers = {}) => {
    response.writeHead(status, { "Content-Type": "text/html; charset=utf-8", ...headers });
    response.end(`<!doctype html><meta charset=utf-8><title>PrintPixie</title><h1>PrintPixie</h1>${body}`);
  };
  const see = (to, headers) => answer(303, "", { Location: to, ...headers });
  switch (`${request.method} ${url.pathname}`) {
    case "GET /":
      return answer(200, await home(login, url.searchParams.get("said")));
    case "POST /login": {
      let form = "";
      for await (const chunk of request) form += chunk;
      const key = randomBytes(32).toString("base64url");
      logins.set(key, { user: new URLSearchParams(form).get("user") });
      // Lax, not Strict: the browser comes back from another site, and must send the cookie then.
      return see("/", { "Set-Cookie": `printpixie=${key}; HttpOnly; SameSite=Lax; Path=/` });
    }
    case "POST /connect":
      return login ? see(await connect(login)) : see("/");
    case "GET /connected": {
      if (!login) return see("/");
      const status = url.searchParams.get("status");
      return see((await connected(login, url.searchParams)) + (status in said ? `?said=${status}` : ""));
    }
    default:
      return answer(404, "Nothing is here.");
  }
}

const server = createServer((request, response) => {
  handle(request, response).catch((error) => {
    console.error(error.message);
    if (!response.headersSent) response.writeHead(502);
    response.end("PrintPixie could not reach its services. Please try again.");
  });
});
server.listen(port, "127.0.0.1", () => console.log(`PrintPixie is at ${appUrl}`));
