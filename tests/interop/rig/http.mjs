// One HTTP call on a connection of its own: no cookies kept, no redirect followed, no header added.

import { request } from 'node:http';

const ANSWERED_WITHIN_MS = 60_000;

/** Answers `{status, headers, text, json}`; `json` is null where the body is none. */
export function send(method, url, { headers = {}, body, form, json } = {}) {
  const sent = { ...headers };
  let payload = body;
  if (json !== undefined) {
    payload = JSON.stringify(json);
    sent['Content-Type'] = 'application/json';
  } else if (form !== undefined) {
    payload = new URLSearchParams(form).toString();
    sent['Content-Type'] = 'application/x-www-form-urlencoded';
  }
  return new Promise((resolve, reject) => {
    const call = request(url, { method, headers: sent, agent: false, timeout: ANSWERED_WITHIN_MS }, (answer) => {
      const chunks = [];
      answer.on('data', (chunk) => chunks.push(chunk));
      answer.on('error', reject);
      answer.on('end', () => {
        const text = Buffer.concat(chunks).toString();
        resolve({ status: answer.statusCode, headers: answer.headers, text, json: parsed(text) });
      });
    });
    call.on('timeout', () => call.destroy(new Error(`${method} ${url}: no answer within ${ANSWERED_WITHIN_MS / 1000} s`)));
    call.on('error', reject);
    call.end(payload);
  });
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
