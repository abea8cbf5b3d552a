#!/usr/bin/env node
// PrintPixie, the smallest client app: list an end user's photos and save one in full size. Node 18 or later, no packages.
//
// It holds no token, no client secret and no OAuth library: plain HTTP to Attaché, and one header that says on whose behalf.
//
//     printpixie.mjs [PHOTO_ID] [FILE]         the first photo into photo.jpg, unless named
//
// Environment: ATTACHE_URL (http://localhost:7070), END_USER (megan@personalemail.com).

import { createWriteStream } from "node:fs";
import { stat } from "node:fs/promises";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";

const attacheUrl = process.env.ATTACHE_URL ?? "http://localhost:7070";
const endUser = process.env.END_USER ?? "megan@personalemail.com";

class Refused extends Error {
  constructor(message, exitCode) {
    super(message);
    this.exitCode = exitCode;
  }
}

// Every call looks like this one.
async function call(path) {
  const answer = await fetch(attacheUrl + path, { headers: { "X-End-User": endUser } });
  if (answer.ok) return answer;
  if (!answer.headers.get("content-type")?.startsWith("application/problem+json")) {
    throw new Refused(`the photo service answered ${answer.status}: ${(await answer.text()).slice(0, 200)}`, 1);
  }
  // One of Attaché's own errors (docs/errors.md). The upstream's pass through as they are.
  const problem = await answer.json();
  const name = problem.type.replace("urn:attache:", "");
  if (name === "not-connected" || name === "reconnect-required") {
    throw new Refused(`${endUser} must connect first: ${problem.detail}\nAn app shows its "connect your photos" button here.`, 3);
  }
  throw new Refused(`${name}: ${problem.detail} (request ${problem.instance})`, 1);
}

async function main() {
  let [photoId, file = "photo.jpg"] = process.argv.slice(2);
  if (!photoId) {
    const { items } = await (await call("/photos")).json();
    if (items.length === 0) throw new Refused(`${endUser} has no photos`, 1);
    for (const photo of items) console.log(`${photo.id}  ${photo.name}`);
    photoId = items[0].id;
  }
  const photo = await call(`/photos/${encodeURIComponent(photoId)}`);
  await pipeline(Readable.fromWeb(photo.body), createWriteStream(file));
  console.log(`saved ${photoId} to ${file}, ${(await stat(file)).size} bytes`);
}

try {
  await main();
} catch (error) {
  const unreachable = error instanceof TypeError && error.cause;
  console.error(unreachable ? `${attacheUrl} does not answer (${error.cause.code}): is \`attache dev\` running?` : error.message);
  process.exitCode = error.exitCode ?? 1;
}
