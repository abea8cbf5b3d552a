// @slack/web-api, with a header.

import { LogLevel, WebClient } from '@slack/web-api';
import { ATTACHE, forEachUser, GONE } from './common.mjs';
import { useSlack } from './slack-calls.mjs';

const more = { rejectRateLimitedCalls: true, logLevel: LogLevel.ERROR };

// docs: begin
const toAttache = (url, init) => fetch(String(url).replace('https://files.slack.com/', `${ATTACHE}/slack-files/`), init);
const slackOf = (endUser) => new WebClient(undefined, {
  slackApiUrl: `${ATTACHE}/slack/api/`,
  headers: { 'X-End-User': endUser },
  fetch: toAttache, // uploads go to a host of their own, and the SDK would send it the same headers
  ...more,
});
// docs: end

await forEachUser((user, login) => useSlack(slackOf(user), slackOf(GONE), login));
